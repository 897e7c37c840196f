"""The connection to a Docker Engine: opened, asked what it can, and called from the event loop."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import socket
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from broadway_grader.errors import SetupError
from broadway_grader.runtimes.images import Answer
from broadway_grader.runtimes.local_requests import LocalRequests

log = logging.getLogger(__name__)

#: Seconds that one call of the engine may take.
ENGINE_TIMEOUT = 60.0
#: Seconds in which an engine must answer at all to be taken for one.
PROBE_TIMEOUT = 10.0

ENGINE_ERRORS = (docker.errors.DockerException, requests.RequestException)
_DEFAULT_SOCKET = "unix:///var/run/docker.sock"


def listener_sees_our_mounts() -> bool:
    """Whether the process behind the local socket has our view of the file system.

    It has not if it is on another machine, or if one of the two is in a container, or in a service that its manager
    gave a view of its own.
    """
    kind, _, path = (os.environ.get("DOCKER_HOST") or _DEFAULT_SOCKET).partition("://")
    if kind != "unix":
        return False
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PROBE_TIMEOUT)
            connection.connect(path)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        listener, _, _ = struct.unpack("3i", credentials)
        # 0: a process that we cannot see. Its namespace is for root to look at, who alone may mount.
        return listener > 0 and Path(f"/proc/{listener}/ns/mnt").samefile("/proc/self/ns/mnt")
    except OSError:
        return False


class Engine:
    """The engine that the environment names (`DOCKER_HOST`; default: the local socket).

    The SDK blocks, so each of its calls has a thread, from a pool of our own.
    """

    def __init__(self, *, threads: int) -> None:
        """`threads`: how many calls may be under way at once."""
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="docker")
        self._connections = threads
        self._client: Any = None
        self._requests: LocalRequests | None = None
        self.facts: Mapping[str, Any] = {}  # its answer to "Get system information"
        self.sees_our_mounts = False  # known once it is open

    async def open(self) -> str:
        """Connect; returns what it is, in a few words. SetupError if there is none that answers."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                connect = functools.partial(
                    docker.from_env, timeout=ENGINE_TIMEOUT, max_pool_size=self._connections, version="auto"
                )
                self._client = await self.call(connect)
                self._requests = LocalRequests(self.api)
                self.facts = await self.call(self.api.info)
                self.sees_our_mounts = await self.call(listener_sees_our_mounts)
        except TimeoutError:
            raise SetupError(f"no Docker Engine answers within {PROBE_TIMEOUT:.0f} s") from None
        except ENGINE_ERRORS as error:
            raise SetupError(_forbidden_socket() or f"no Docker Engine answers: {error}") from error
        if not any(option.startswith("name=seccomp") for option in self._security if "unconfined" not in option):
            log.warning("this engine filters no system calls: it runs containers without a seccomp profile")
        return f"Docker Engine {self.facts.get('ServerVersion')} at {self.api.base_url}"

    @property
    def api(self) -> Any:
        """The SDK's methods, which block; for `call`."""
        return self._client.api

    @property
    def maps_users(self) -> bool:
        """Whether root in a container is somebody else on the host, and high user ids are nobody at all."""
        return any(re.match("name=(userns|rootless)", option) for option in self._security)

    def require_runtime(self, name: str) -> None:
        """Raise SetupError if the engine has no OCI runtime of that name."""
        known = self.facts.get("Runtimes") or {}
        if name not in known:
            raise SetupError(
                f"the Docker Engine has no OCI runtime {name!r}, only {', '.join(sorted(known))}: install it, name it "
                "in the engine's daemon.json and restart the engine"
            )

    async def call(self, function: Callable[..., Answer], *arguments: Any, **named: Any) -> Answer:
        """Run a blocking function in a thread."""
        call = functools.partial(function, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        """Disconnect; idempotent."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._requests is not None:
            self._requests.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _security(self) -> list[str]:
        return self.facts.get("SecurityOptions") or []


def explanation(error: Exception) -> str:
    """The engine's own words where there are any."""
    return str(getattr(error, "explanation", None) or error)


def _forbidden_socket() -> str | None:
    """What to say if the engine's socket is there, but not for us."""
    kind, _, path = (os.environ.get("DOCKER_HOST") or _DEFAULT_SOCKET).partition("://")
    if kind != "unix" or not os.access(path, os.F_OK) or os.access(path, os.R_OK | os.W_OK):
        return None
    return f"{path} is there, but this user may not open it: add the user to the group docker, or run as one that may"
