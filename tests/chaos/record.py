"""The campaign's own record of what stages did, written by the graders' processes and believed before any database."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from broadway_grader.domain import Stage, StageResult
from broadway_grader.ending import Ending
from broadway_grader.runtimes.port import OnOutput, Place, Runtime, nobody

BEGIN, END, STOPPED = "begin", "end", "stopped"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that happened to one stage."""

    at: float  # seconds of CLOCK_MONOTONIC, which all processes of this machine share
    life: str  # which start of which grader
    job_id: str
    attempt: int
    stage: int
    event: str  # BEGIN, END or STOPPED
    exit_code: int | None = None

    def __str__(self) -> str:
        code = "" if self.exit_code is None else f", exit code {self.exit_code}"
        return f"{self.at:10.3f} {self.life} attempt {self.attempt} stage {self.stage} {self.event}{code}"


class Recorder:
    """Appends entries to a file.

    One write(2) each to a file opened for appending, and no fsync: what the kernel took outlives a killed process,
    and losing power is not among the campaign's faults.
    """

    def __init__(self, path: Path, life: str) -> None:
        self._life = life
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, place: Place, event: str, exit_code: int | None = None) -> None:
        """Write one entry; it is safe when this returns."""
        entry = Entry(
            at=time.monotonic(),
            life=self._life,
            job_id=place.job_id,
            attempt=place.attempt,
            stage=place.stage,
            event=event,
            exit_code=exit_code,
        )
        os.write(self._file, (json.dumps(dataclasses.asdict(entry)) + "\n").encode())


class RecordedRuntime:
    """Any runtime, with a record of what it ran."""

    def __init__(self, runtime: Runtime, recorder: Recorder) -> None:
        self._runtime = runtime
        self._recorder = recorder

    @property
    def name(self) -> str:
        return self._runtime.name

    @property
    def sees_our_mounts(self) -> bool:
        return self._runtime.sees_our_mounts

    async def open(self) -> str:
        return await self._runtime.open()

    async def remove_leftovers(self) -> None:
        await self._runtime.remove_leftovers()

    async def run_stage(
        self,
        stage: Stage,
        place: Place,
        ending: Ending | None = None,
        on_output: OnOutput = nobody,
        *,
        following: Stage | None = None,
    ) -> StageResult:
        self._recorder.note(place, BEGIN)
        try:
            result = await self._runtime.run_stage(stage, place, ending, on_output, following=following)
        except BaseException:
            self._recorder.note(place, STOPPED)
            raise
        self._recorder.note(place, END, result.exit_code)
        return result

    async def release(self, slot: int) -> None:
        await self._runtime.release(slot)

    async def close(self) -> None:
        await self._runtime.close()


def read(directory: Path) -> Iterator[Entry]:
    """All entries of all graders' records in `directory`, oldest first."""
    entries = [
        Entry(**json.loads(line)) for path in directory.glob("*.record") for line in path.read_text().splitlines()
    ]
    yield from sorted(entries, key=lambda entry: entry.at)


def by_attempt(entries: Iterator[Entry]) -> Mapping[str, Mapping[int, list[Entry]]]:
    """Job id → attempt → its entries, oldest first."""
    found: defaultdict[str, defaultdict[int, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        found[entry.job_id][entry.attempt].append(entry)
    return found
