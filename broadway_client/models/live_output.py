"""What somebody who follows a job is told."""

from __future__ import annotations

from dataclasses import dataclass

from broadway_client.codec import Answer
from broadway_client.models.jobs import JobState, Reason


@dataclass(frozen=True, kw_only=True)
class JobChange(Answer):
    """How a job that is followed is now. Another attempt than before is a new beginning."""

    job_id: str
    state: JobState
    reason: Reason | None
    attempt: int


@dataclass(frozen=True, kw_only=True)
class StageChange(Answer):
    """A stage of it is `running`, or has `ended`; of its streams in `truncated` no more is kept."""

    attempt: int
    stage: int
    state: str
    exit_code: int | None
    reason: Reason | None
    truncated: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Printed(Answer):
    """What a stage printed. `start`: bytes of the stream's log before it; `dropped`: those that were not told."""

    attempt: int
    stage: int
    stream: str
    start: int
    text: str
    dropped: int


@dataclass(frozen=True, kw_only=True)
class LogEnd(JobChange):
    """The job has ended, and all was told but so many bytes; `Client.job_log` has them."""

    dropped: int
