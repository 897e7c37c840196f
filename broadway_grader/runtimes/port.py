"""What a runtime is: the one thing that knows how to run a stage. A new one is a new file and a line in `choose`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol

from broadway_grader.domain import Stage, StageResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a stage gets that does not say what it wants, and what of its output is kept."""

    memory: int  # bytes
    cpus: float
    pids: int
    log_bytes: int  # of stdout and of stderr, each


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a runtime is made from; each takes what it has a use for."""

    limits: Limits
    slots: int  # stages at once, at most
    instance: str  # which grader this is, over all of its lives
    image_pull_policy: str = "missing"  # or always, never


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a stage stands: which job, which attempt, which of its stages, and the host's side of /job."""

    job_id: str
    attempt: int
    stage: int  # index, from 0
    directory: Path  # absolute


class Runtime(Protocol):
    """Runs stages, several at once. Stages are hostile, and so is everything that they leave in /job.

    `open` comes first, `remove_leftovers` next, `close` last; `close` is idempotent and safe before `open`.
    """

    @property
    def name(self) -> str:
        """The name that configuration, worker list and results know it by."""

    async def open(self) -> str:
        """Get ready; returns one line that describes what will run the stages.

        Raises SetupError with one line for people if it cannot work on this machine.
        """

    async def remove_leftovers(self) -> None:
        """Remove what an earlier life of this very grader left running or lying about, and nothing of anybody else's.

        Raises SetupError if that is impossible: a leftover stage could still write to its /job.
        """

    async def run_stage(self, stage: Stage, place: Place) -> StageResult:
        """Run one stage to its end, with `place.directory` as its /job.

        Whatever happens, nothing of the stage is left when this returns or raises: no process, no container. Every
        failure, of the stage or of the runtime, is in the result. Seconds of `stage.timeout` count from the start of
        the stage's first process. Being cancelled kills the stage.
        """

    async def close(self) -> None:
        """Give everything back. No stage may be running."""
