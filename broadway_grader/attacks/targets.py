"""What attacks aim at on the host, set up for one attack and looked at afterwards.

A secret in a file, sockets, the machine's own settings, its processes: none of it can be reached from a stage that is
properly confined, and none of it is harmed if it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import struct
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from broadway_grader.domain import JobResult
from broadway_grader.workspace import WorkDirectory

#: Where the bait lies: open to everybody, and kept from stages by nothing but what is to be tested. /tmp would not do,
#: the sandbox has one of its own in front of it.
_BAIT = "/var/tmp"  # noqa: S108 - the directory made there has a name that nobody can guess
#: The variable by which processes of an attack are known on the host.
_MARK = "BROADWAY_MARK"
_SETTINGS = ("core_pattern", "modprobe", "hostname", "panic", "sysrq")
_GET_ADDRESS = 0x8915  # SIOCGIFADDR, linux/sockios.h


class Targets:
    """The targets of one attack; enter before it, ask for `faults` after it."""

    def __init__(self, directory: WorkDirectory, grader_secrets: Collection[str]) -> None:
        """`grader_secrets`: what the grader itself must not give away."""
        self._work = directory
        self._secret = secrets.token_hex(16)
        self._secrets = {self._secret, *grader_secrets}
        self._mark = secrets.token_hex(8)
        self._stack = contextlib.ExitStack()
        self._listeners: list[socket.socket] = []
        self._before: Mapping[str, str] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Below no directory that is closed to others: the defences are to be tested, not the permissions of ours.
            self._directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="broadway-target-", dir=_BAIT))
            )
            self._directory.chmod(0o777)
            self._file = self._directory / "secret.json"
            self._file.write_text(self._content())
            self._file.chmod(0o666)
            for address in _addresses():
                self._listen(stack, socket.AF_INET, (address, 0))
            self._socket_name = f"broadway-{self._mark}"
            self._listen(stack, socket.AF_UNIX, f"\0{self._socket_name}")
            self._before = _settings()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def env(self) -> Mapping[str, str]:
        """What the attacking stages are told of their targets."""
        addresses = [each.getsockname() for each in self._listeners if each.family == socket.AF_INET]
        return {
            _MARK: self._mark,
            "GRADER_PID": str(os.getpid()),
            "HOST_DIRECTORY": str(self._directory),
            "HOST_FILE": str(self._file),
            "HOST_SOCKET": self._socket_name,
            "HOST_ADDRESSES": " ".join(f"{host}:{port}" for host, port in addresses),
            "WORK_DIRECTORY": str(self._work.path),
        }

    def faults(self, result: JobResult | None) -> Iterator[str]:
        """What the attack did to the host. Blocks for some milliseconds."""
        told = "" if result is None else str(result.to_wire())
        if any(secret in told for secret in self._secrets):
            yield "the result has a secret of the host in it"
        if not self._file.is_file() or self._file.read_text() != self._content():
            yield "a file of the host was changed"
        if sorted(path.name for path in self._directory.iterdir()) != [self._file.name]:
            yield "a directory of the host was changed"
        for listener in self._listeners:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                yield f"a socket of the host was reached: {listener.getsockname()!r}"
        after = _settings()
        yield from (f"{name} of the kernel was changed" for name in self._before if after[name] != self._before[name])
        if left := self._processes():
            yield f"{len(left)} of its processes live on: {', '.join(map(str, left[:5]))}"

    def _content(self) -> str:
        """The secret as a result that a grader might take for one."""
        return f'{{"score": 0, "output": "{self._secret}"}}\n'

    def _listen(
        self, stack: contextlib.ExitStack, family: socket.AddressFamily, address: tuple[str, int] | str
    ) -> None:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        with contextlib.suppress(OSError):  # an interface that is about to vanish
            listener.bind(address)
            listener.listen()
            listener.setblocking(False)
            self._listeners.append(listener)

    def _processes(self) -> list[int]:
        words = f"{_MARK}={self._mark}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has ended since, or is none of ours
                if words in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found


def _addresses() -> Iterator[str]:
    """The loopback's address, and those of this machine on the bridges of containers."""
    yield "127.0.0.1"
    for _, name in socket.if_nameindex():
        if name.startswith(("docker", "br-", "podman", "cni")):
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
                answer = fcntl.ioctl(line, _GET_ADDRESS, struct.pack("256s", name.encode()[:15]))
                yield socket.inet_ntoa(answer[20:24])


def _settings() -> Mapping[str, str]:
    """Settings of the kernel that attacks go for."""
    found = {}
    for name in _SETTINGS:
        with contextlib.suppress(OSError):
            found[name] = Path("/proc/sys/kernel", name).read_text("ascii", "replace")
    return found
