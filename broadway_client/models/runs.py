"""Grading runs, and what their jobs amount to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broadway_client.codec import Answer, OpenEnum
from broadway_client.models.fleet import Stranded
from broadway_client.models.jobs import Job, JobState, Reason


class RunState(OpenEnum):
    """`ready → pre_processing → students → post_processing → finished | failed | cancelled`."""

    READY = "ready"
    PRE_PROCESSING = "pre_processing"
    STUDENTS = "students"
    POST_PROCESSING = "post_processing"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to the run any more, unless it is retried."""
        return self in (RunState.FINISHED, RunState.FAILED, RunState.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class RunCreated(Answer):
    """A run that is stored, and waits to be started."""

    grading_run_id: str


@dataclass(frozen=True, kw_only=True)
class RunMoved(Answer):
    """A run after it was started or cancelled."""

    grading_run_id: str
    state: RunState


@dataclass(frozen=True, kw_only=True)
class RunRetried(Answer):
    """A run that goes on. `jobs`: how many are tried again; None where the answer that told it got lost."""

    grading_run_id: str
    jobs: int | None


@dataclass(frozen=True, kw_only=True)
class Run(Answer):
    """A run as lists show it; `success` is None until it has ended."""

    grading_run_id: str
    course: str
    state: RunState
    success: bool | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    priority: int = 0


@dataclass(frozen=True, kw_only=True)
class RunPage(Answer):
    """Some runs, newest first; `next` is the `after` of the following page."""

    grading_runs: tuple[Run, ...]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class CountedRun(Run):
    """A run with its jobs counted by state."""

    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class RunOverview(Answer):
    """Some runs, newest first; `next` is the `after` of the following page."""

    grading_runs: tuple[CountedRun, ...]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class EndJob(Answer):
    """The pre- or post-processing job of a run."""

    job_id: str
    state: JobState
    reason: Reason | None


@dataclass(frozen=True, kw_only=True)
class RunStatus(Run):
    """A run with what its jobs amount to."""

    counts: Mapping[str, int]
    reasons: Mapping[str, int]
    eta_seconds: int | None
    pre_processing_job: EndJob | None
    post_processing_job: EndJob | None
    stranded: tuple[Stranded, ...] = ()

    @property
    def total(self) -> int:
        """All jobs of the run."""
        return sum(self.counts.values())

    @property
    def ended_jobs(self) -> int:
        """How many of them have their outcome."""
        return sum(number for state, number in self.counts.items() if JobState(state).ended)


@dataclass(frozen=True, kw_only=True)
class JobPage(RunStatus):
    """A run and some of its jobs, in roster order; `next` is the `after` of the following page."""

    jobs: tuple[Job, ...]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class Distribution(Answer):
    """How values spread; each bar has `from`, `to`, and `jobs`, the number of values between them."""

    median: float
    highest: float
    bars: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Statistics(Answer):
    """How long students' jobs took, in seconds, and their scores; None without any."""

    seconds: Distribution | None
    scores: Distribution | None


class DeliveryState(OpenEnum):
    """How telling a webhook of a run's end goes."""

    PENDING = "pending"  # to be told, or told again
    HEARD = "heard"  # answered with 2xx
    GIVEN_UP = "given_up"  # not heard in three days


@dataclass(frozen=True, kw_only=True)
class Delivery(Answer):
    """What a webhook is told of one end of a run; `fault` is why the last attempt that is over was not heard."""

    delivery_id: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    heard_at: datetime | None
    fault: str | None


@dataclass(frozen=True, kw_only=True)
class DeliveryList(Answer):
    """What a webhook is told of a run, the oldest first."""

    deliveries: tuple[Delivery, ...]
