"""Jobs: how they are, why they failed, what they printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broadway_client.codec import Answer, OpenEnum

#: A roster entry, as its course wrote it.
Student = Mapping[str, Any]


class JobState(OpenEnum):
    """`waiting → queued → running → succeeded | failed | cancelled`."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the job has its outcome."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobType(OpenEnum):
    """Which of the run's pipelines a job is an instance of."""

    PRE_PROCESSING = "pre_processing"
    STUDENT = "student"
    POST_PROCESSING = "post_processing"


class Reason(OpenEnum):
    """Why a job did not succeed."""

    STAGE_FAILED = "stage_failed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    DISK_LIMIT = "disk_limit"
    IMAGE_UNAVAILABLE = "image_unavailable"
    RUNTIME_ERROR = "runtime_error"
    WORKER_LOST = "worker_lost"
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105  # the name of a reason
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Job(Answer):
    """A job as its run's list shows it; the scores are those of its results, None without."""

    job_id: str
    type: JobType
    state: JobState
    reason: Reason | None
    score: float | None
    max_score: float | None
    attempt: int
    worker_id: str | None
    student: Student | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def seconds(self) -> float | None:
        """How long its last attempt ran."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True, kw_only=True)
class Attempt(Answer):
    """An earlier attempt, which an infrastructure fault ended."""

    attempt: int
    worker_id: str | None
    hostname: str | None
    reason: Reason | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class JobDetail(Job):
    """All about a job but its output. `pipeline` has the stages as configured, `info` one entry per stage that ran.

    Both are as the API has them: graders of other releases have other names in `info`, and other types.
    """

    grading_run_id: str
    worker_hostname: str | None
    pipeline: tuple[Mapping[str, Any], ...]
    results: Mapping[str, Any] | None
    info: tuple[Mapping[str, Any], ...]
    attempts: tuple[Attempt, ...]
    priority: int = 0
    require: tuple[str, ...] = ()
    position: int | None = None  # how many jobs stand before it in the queue
    stranded: str | None = None  # why no worker can run it
    cause: str = ""  # of its failure, in one line without what differs from student to student
    said: str = ""  # the line that the cause was made of


@dataclass(frozen=True, kw_only=True)
class FoundJob(Job):
    """A job that was looked for; `said` is why it failed, in one line, `cause` what it has in common with others."""

    cause: str
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class JobsFound(Answer):
    """Some of the jobs that fit a search, and how many do in all."""

    jobs: tuple[FoundJob, ...]
    total: int


@dataclass(frozen=True, kw_only=True)
class Cause(Answer):
    """Failures that have reason and cause in common; `example` is the first of them in the roster."""

    reason: Reason
    cause: str
    jobs: int
    example: FoundJob


@dataclass(frozen=True, kw_only=True)
class Failures(Answer):
    """Why jobs of a run failed, the most frequent causes first, and how many failed in all."""

    failed: int
    causes: tuple[Cause, ...]


@dataclass(frozen=True, kw_only=True)
class StageLog(Answer):
    """What one stage printed."""

    stage: int
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class JobLog(Answer):
    """What a job's last reported attempt printed, without stages that printed nothing."""

    job_id: str
    attempt: int | None
    stages: tuple[StageLog, ...]
