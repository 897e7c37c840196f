"""What a runtime is: the one thing that knows how to run a stage. A new one is a new file and a line in `choose`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from broadway_grader.domain import Stage, StageResult
from broadway_grader.ending import Ending
from broadway_grader.runtimes.output import BoundedOutput
from broadway_grader.runtimes.users import StageUsers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a stage gets that does not say what it wants, and what of its output is kept."""

    memory: int  # bytes
    cpus: float
    pids: int
    log_bytes: int  # of stdout and of stderr, each
    stop_at_log_bytes: bool = False  # whether a stage that prints more is stopped, or the rest dropped
    tmp: int = 64 * 1024**2  # bytes of /tmp and of /dev/shm, each; they are memory
    disk: int = 1024**3  # bytes that a stage may write outside of /job, and of the largest file it may write
    open_files: int = 4096  # of a process; where it is a million, some programs close a million of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a runtime is made from; each takes what it has a use for."""

    limits: Limits
    slots: int  # stages at once, at most
    instance: str  # which grader this is, over all of its lives
    work_dir: Path  # absolute; the grader's own, whose files what runs the stages can mount
    image_pull_policy: str = "missing"  # or always, never
    stage_users: StageUsers = "auto"
    allow_root_stages: bool = True  # whether a stage may be root, which it is without a single capability
    read_only: bool = False  # the root file system of a stage that does not say
    oci_runtime: str = ""  # of the engine's; empty: its default
    auto_image: str = ""  # without which, here or pulled, `auto` does not take a runtime that has images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a stage stands: which job, which attempt, which of its stages, and the host's side of /job."""

    job_id: str
    attempt: int
    stage: int  # index, from 0
    slot: int  # from 0; of all jobs that run at once each has its own
    directory: Path  # absolute


#: Who looks at a stage's stdout and stderr while they grow. To return at once, and not to raise.
OnOutput = Callable[[Sequence[BoundedOutput]], None]


def nobody(_outputs: Sequence[BoundedOutput]) -> None:
    """Looks at no output."""


class UnusableStage(ValueError):
    """The stage asks for something that it cannot have here; says what."""


class UnusableHere(Exception):
    """The stage asks for something that it cannot have here, and could have elsewhere; says what."""


class Runtime(Protocol):
    """Runs stages, several at once. Stages are hostile, and so is everything that they leave in /job.

    `open` comes first, `remove_leftovers` next, `close` last; `close` is idempotent and safe before `open`.
    """

    @property
    def name(self) -> str:
        """The name that configuration, worker list and results know it by."""

    @property
    def sees_our_mounts(self) -> bool:
        """Whether a file system that this process mounts is seen by what runs the stages. Known once it is open."""

    async def open(self) -> str:
        """Get ready; returns one line that describes what will run the stages.

        Raises SetupError with one line for people if it cannot work on this machine.
        """

    async def remove_leftovers(self) -> None:
        """Remove what an earlier life of this very grader left running or lying about, and nothing of anybody else's.

        Raises SetupError if that is impossible: a leftover stage could still write to its /job.
        """

    async def run_stage(
        self,
        stage: Stage,
        place: Place,
        ending: Ending | None = None,
        on_output: OnOutput = nobody,
        *,
        following: Stage | None = None,
    ) -> StageResult:
        """Run one stage to its end, with `place.directory` as its /job.

        Whatever happens, no process of the stage is left when this returns or raises, and nothing else either, but for
        the container of a stage that succeeded, which may be removed later, and `following`, the stage that comes next
        in this slot if this one succeeds, which may be got ready meanwhile: `release` waits for all of that. Every
        failure, of the stage or of the runtime, is in the result. Seconds of `stage.timeout` count from the start of
        the stage's first process. Being cancelled kills the stage, and so does an order that `ending` is given, whose
        reason and message are then the result's. `on_output` is told before it begins where its stdout and stderr will
        be kept, unless they are not.
        """

    async def release(self, slot: int) -> None:
        """When a job is over: give up what was got ready for a stage that will not run.

        Nothing of the slot's job is left when this returns. Harmless at any time when no stage of the slot runs.
        """

    async def close(self) -> None:
        """Give everything back. No stage may be running."""
