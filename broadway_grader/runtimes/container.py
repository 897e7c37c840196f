"""The life of one container: created, started, watched, ended, removed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import docker.errors

from broadway_grader.domain import Reason
from broadway_grader.ending import Ending
from broadway_grader.runtimes.attach import AttachedStream
from broadway_grader.runtimes.engine import Engine, explanation
from broadway_grader.runtimes.layer import watch_layer
from broadway_grader.runtimes.output import BoundedOutput
from broadway_grader.runtimes.usage import Usage

log = logging.getLogger(__name__)

#: Seconds that a killed container may take to end, and its last output to arrive.
KILL_GRACE = 10.0

# How the engine says that a container cannot be started for a reason that its stage brought along, and the exit code
# that a shell would have given.
_START_FAULTS = (
    (re.compile(r"exec: .*(executable file not found|no such file or directory)"), 127),
    (re.compile(r"exec: .*(permission denied|is a directory|exec format error)"), 126),
    (re.compile(r"unable to find (user|group)|no matching entries in (passwd|group)"), 126),
)
# How it says that it sees another file system than the grader, which is nothing that a stage could bring about.
_UNSEEN = "bind source path does not exist"
_EXIT_MESSAGES = {
    126: "the entry point could not be executed",
    127: "the entry point, or a command in it, was not found",
}


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What is known of a container so far."""

    exit_code: int | None = None
    reason: Reason | None = None
    message: str | None = None
    started_at: datetime | None = None
    memory_peak: int | None = None  # bytes
    cpu_seconds: float | None = None
    image_digest: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it has ended, and as it should."""
        return self.exit_code == 0 and self.reason is None


class Container:
    """One container of a stage: created, run at most once, then the caller's to remove.

    What becomes of it is written to `outcome` as it happens, so that a failing engine leaves what was known before.
    """

    def __init__(self, engine: Engine, request: Mapping[str, Any], outcome: Outcome) -> None:
        self._engine = engine
        self._api = engine.api
        self._request = request
        self.outcome = outcome
        self.id = ""  # empty: there is none

    async def create(self) -> None:
        """Create it; there is none if the engine finds something in the request that cannot be: the stage's fault."""
        try:
            created = await self._engine.call(self._api.create_container_from_config, self._request)
        except docker.errors.APIError as error:
            if error.status_code != 400 or _UNSEEN in explanation(error):
                raise
            # The engine read the request and found a value in it that cannot be: a host name, a limit, no command.
            self.outcome.reason, self.outcome.message = Reason.STAGE_FAILED, explanation(error)
        else:
            self.id = str(created["Id"])

    async def run(self, seconds: float, disk: int, ending: Ending, outputs: tuple[BoundedOutput, ...]) -> None:
        """Start it and see it to its end, which comes at the latest with `ending`.

        That is ordered here after so many `seconds`, or when it has written more than `disk` bytes outside of /job.
        """
        async with self._attached(outputs) as copies:
            if await self._start():
                with self._measured():
                    watching = asyncio.create_task(watch_layer(self._engine, self.id, disk, ending))
                    try:
                        await self._wait(seconds, ending)
                    finally:
                        watching.cancel()
                if copies:  # which end with the container's last process
                    await asyncio.wait(copies, timeout=KILL_GRACE)

    async def _start(self) -> bool:
        outcome = self.outcome
        try:
            await self._engine.call(self._api.start, self.id)
        except docker.errors.APIError as error:
            message = explanation(error)
            for pattern, exit_code in _START_FAULTS:
                if pattern.search(message):
                    outcome.exit_code, outcome.reason, outcome.message = exit_code, Reason.STAGE_FAILED, message
                    return False
            raise
        outcome.started_at = datetime.now(UTC)
        return True

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        usage = Usage(self._engine.facts, self.id)
        usage.watch()
        try:
            yield
        finally:
            usage.close()
            self.outcome.memory_peak, self.outcome.cpu_seconds = usage.memory_peak, usage.cpu_seconds

    async def _wait(self, seconds: float, ending: Ending) -> None:
        """Wait for the end of the container, or bring it about."""
        waiting = asyncio.ensure_future(self._engine.call(self._api.wait, self.id, timeout=seconds + 2 * KILL_GRACE))
        try:
            await ending.first_of(waiting, seconds)
            if not waiting.done():
                ending.order(Reason.TIMEOUT, f"it ran longer than {seconds:g} s")
                await self._kill()
                await asyncio.wait({waiting}, timeout=KILL_GRACE)
                return
            ended = waiting.result()
        finally:
            waiting.add_done_callback(_retrieve)
        await self._judge(ended)

    async def _judge(self, ended: Mapping[str, Any]) -> None:
        outcome = self.outcome
        outcome.exit_code = int(ended["StatusCode"])
        if outcome.exit_code == 0 and not ended.get("Error"):
            return
        state = (await self._engine.call(self._api.inspect_container, self.id))["State"]
        outcome.exit_code = int(state["ExitCode"])
        if state.get("OOMKilled"):
            outcome.reason = Reason.OUT_OF_MEMORY
            outcome.message = f"it wanted more than {self._request['HostConfig']['Memory']} bytes of memory"
        else:
            outcome.reason = Reason.STAGE_FAILED
            outcome.message = state.get("Error") or _EXIT_MESSAGES.get(outcome.exit_code)

    async def _kill(self) -> None:
        try:
            await self._engine.call(self._api.kill, self.id)
        except docker.errors.APIError as error:
            if error.status_code not in (404, 409):  # gone, or ended by itself at the last moment
                raise

    @contextlib.asynccontextmanager
    async def _attached(self, outputs: tuple[BoundedOutput, ...]) -> AsyncIterator[set[asyncio.Task[None]]]:
        """Copy the container's stdout and stderr, over one connection each so that each can be cut off by itself.

        Yields the tasks that copy. They are attached before the container is started, so nothing is missed.
        """
        streams: list[AttachedStream] = []
        copies: set[asyncio.Task[None]] = set()
        try:
            await self._engine.call(self._attach, streams, len(outputs))
            for stream, output in zip(streams, outputs, strict=True):
                copies.add(asyncio.create_task(self._engine.call(stream.copy, output)))
            yield copies
        finally:
            for stream in streams:
                stream.hang_up()
            if copies:
                await asyncio.wait(copies)

    def _attach(self, streams: list[AttachedStream], count: int) -> None:
        """Attach to as many streams, each of which is in `streams` from then on, also if the next one fails. Blocks."""
        for name in ("stdout", "stderr")[:count]:
            streams.append(AttachedStream(self._api, self.id, name))  # noqa: PERF401 - each at once, for who hangs up


def _retrieve(done: asyncio.Future[Any]) -> None:
    """Take the error of something that nobody waits for any more."""
    if not done.cancelled() and (error := done.exception()):
        log.debug("a call to the engine was abandoned and failed: %s", error)
