"""The same stage without a grader: by the engine's own calls in a row, and by a bwrap of the same arguments."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker

from broadway_grader.domain import Stage
from broadway_grader.runtimes import bubblewrap
from broadway_grader.runtimes.confinement import container_request
from broadway_grader.runtimes.port import Place, Settings
from broadway_grader.runtimes.users import host_user, user_of_slot


class BareEngine:
    """Create, start, wait, logs, remove, with the options that the grader gives and by the SDK that it uses."""

    def __init__(self, stage: Stage, settings: Settings, job: Path) -> None:
        place = Place(job_id="bare", attempt=1, stage=0, slot=0, directory=job)
        request = container_request(stage, place, settings, default_user=user_of_slot("auto", 0))
        # The grader reads output while it is printed; without that there must be something to read it from.
        host = {name: value for name, value in request["HostConfig"].items() if name != "LogConfig"}
        self._request: Mapping[str, Any] = {**request, "HostConfig": host}
        self._client = docker.from_env(version="auto")

    def run(self, *, engines_network: bool = False) -> None:
        """Run the stage, perhaps with the engine's network `none` in place of no network at all.

        Blocks; any number of threads may call this at once.
        """
        api = self._client.api
        network = {"NetworkDisabled": False} if engines_network else {}
        container = api.create_container_from_config({**self._request, **network})["Id"]
        try:
            api.start(container)
            if (status := api.wait(container)["StatusCode"]) != 0:
                raise RuntimeError(f"the bare container ended with {status}")
            api.logs(container, stdout=True, stderr=True)
        finally:
            api.remove_container(container, v=True, force=True)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


class BareBwrap:
    """One bwrap, or of root the two that its stages go through, with what the grader gives them."""

    def __init__(self, stage: Stage, settings: Settings, job: Path) -> None:
        self._stage = stage
        self._settings = settings
        self._job = job
        self._program = next(iter(bubblewrap.programs()))

    def run(self) -> None:
        """Run the stage. Blocks."""
        with contextlib.ExitStack() as stack:
            descriptors: list[int] = []

            def content(data: bytes) -> int:
                file = stack.enter_context(os.fdopen(os.memfd_create("bare"), "wb"))
                file.write(data)
                file.flush()
                file.seek(0)
                descriptors.append(file.fileno())
                return file.fileno()

            reports = [stack.enter_context(_pipe()) for _ in range(2)]
            descriptors += reports
            command = self._command(content, reports)
            subprocess.run(
                command,
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                env={},
                cwd="/",
            )

    def _command(self, content: Any, reports: Sequence[int]) -> list[str]:
        stage, limits, as_root = self._stage, self._settings.limits, os.geteuid() == 0
        options = content(bubblewrap.options(stage, limits, self._job, reports[0], content, as_root=as_root))
        inner = bubblewrap.limited(stage, limits, stage.entry_point or ())
        mark = bubblewrap.mark("bare")
        if not as_root:
            return bubblewrap.command(self._program, options, inner, mark=mark)
        user = host_user("auto", 0)
        return bubblewrap.command_of_root(self._program, self._job, user, reports[1], options, inner, mark=mark)


@contextlib.contextmanager
def _pipe() -> Iterator[int]:
    """The writing end of one that nobody reads: a report is shorter than what a pipe holds."""
    reading, writing = os.pipe()
    try:
        yield writing
    finally:
        os.close(reading)
        os.close(writing)
