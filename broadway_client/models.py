"""What the API answers, as frozen dataclasses. Times are aware, in UTC; `docs/protocol.md` explains each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from broadway_client.codec import Answer, OpenEnum

#: A roster entry, as its course wrote it.
Student = Mapping[str, Any]


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


class WorkerState(OpenEnum):
    """How the API sees a worker."""

    ALIVE = "alive"
    LOST = "lost"
    DRAINING = "draining"
    QUARANTINED = "quarantined"


class Role(OpenEnum):
    """What a token may do."""

    OPERATOR = "operator"
    WORKER = "worker"
    ADMIN = "admin"
    QUERY = "query"


# --- runs ------------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, kw_only=True)
class EndJob(Answer):
    """The pre- or post-processing job of a run."""

    job_id: str
    state: JobState
    reason: Reason | None


@dataclass(frozen=True, kw_only=True)
class Stranded(Answer):
    """Queued jobs that no worker can run, and why."""

    require: tuple[str, ...]
    jobs: int
    message: str


@dataclass(frozen=True, kw_only=True)
class CourseQueue(Answer):
    """What a course has in the queue, and what of it no worker can run."""

    course: str
    depth: int
    oldest_queued_at: datetime
    stranded: tuple[Stranded, ...]


@dataclass(frozen=True, kw_only=True)
class Queue(Answer):
    """The queue, of courses that have something in it."""

    courses: tuple[CourseQueue, ...]


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
class JobPage(RunStatus):
    """A run and some of its jobs, in roster order; `next` is the `after` of the following page."""

    jobs: tuple[Job, ...]
    next: str | None


# --- jobs ------------------------------------------------------------------------------------------------------------


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


# --- the fleet -------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, kw_only=True)
class Worker(Answer):
    """A registered grader; `running` are the ids of its jobs."""

    worker_id: str
    hostname: str
    slots: int
    runtime: str
    version: str
    labels: Mapping[str, str]
    state: WorkerState
    quarantined_until: datetime | None
    registered_at: datetime
    last_seen: datetime
    running: tuple[str, ...]
    jobs_processed: int


@dataclass(frozen=True, kw_only=True)
class WorkerList(Answer):
    """All workers."""

    workers: tuple[Worker, ...]


@dataclass(frozen=True, kw_only=True)
class WorkerNamed(Answer):
    """The worker that was told something."""

    worker_id: str


@dataclass(frozen=True, kw_only=True)
class Health(Answer):
    """The API works; `loop_lag_seconds` is told to operators only."""

    store: str
    loop_lag_seconds: float | None = None


# --- courses, tokens, secrets ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Course(Answer):
    """A course; `tokens` and `query_tokens` count those that it was configured with."""

    course: str
    weight: float
    tokens: int
    query_tokens: int
    from_file: bool


@dataclass(frozen=True, kw_only=True)
class CourseList(Answer):
    """All courses."""

    courses: tuple[Course, ...]


@dataclass(frozen=True, kw_only=True)
class CourseNamed(Answer):
    """The course that was taken away."""

    course: str


@dataclass(frozen=True, kw_only=True)
class Token(Answer):
    """A token without its text; `state` is `valid`, `expired` or `revoked`."""

    token_id: str
    role: Role
    course: str | None
    label: str
    state: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class TokenMade(Token):
    """A new token with its text, which is shown this once."""

    token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TokenList(Answer):
    """All tokens that were made."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True, kw_only=True)
class Secret(Answer):
    """A secret's name, and when it was set; no call tells a value."""

    name: str
    changed_at: datetime


@dataclass(frozen=True, kw_only=True)
class SecretList(Answer):
    """All secrets of a course."""

    secrets: tuple[Secret, ...]


@dataclass(frozen=True, kw_only=True)
class SecretNamed(Answer):
    """The secret that was deleted."""

    name: str


@dataclass(frozen=True, kw_only=True)
class SecretsResealed(Answer):
    """How many secrets were sealed anew."""

    secrets: int
