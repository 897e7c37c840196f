"""The words of Broadway as values: what a run, a job, a worker and a claim are. No I/O, no behaviour.

Times are aware datetimes in UTC, whole milliseconds (what every store can keep exactly). Ids are the 24 hexadecimal
digits of an ObjectId.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as value_of_a_job
else:

    def value_of_a_job(*, frozen: bool, **options: Any) -> Callable[[type], type]:
        """A `dataclass`, frozen for the type checker alone: at run time that makes each field cost a call to set.

        Of these a dozen are made for each job that is claimed and ended, of jobs alone 78 fields.
        """
        return dataclass(unsafe_hash=frozen, **options)


#: Environment as courses write it: values are strings, numbers or booleans.
Env = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class SecretRef:
    """In place of a value: that of the course's secret of this name, when a job is handed out."""

    name: str


#: Environment of a stage, the only place where secrets may stand.
StageEnv = Mapping[str, str | int | float | bool | SecretRef]

#: The course of every run that comes through the cluster-token protocol.
DEFAULT_COURSE = "default"


class RunState(StrEnum):
    """`ready → pre_processing → students → post_processing → finished | failed | cancelled`."""

    READY = "ready"  # stored, not started
    PRE_PROCESSING = "pre_processing"  # its pre-processing job is queued or running
    STUDENTS = "students"  # its student jobs are queued or running
    POST_PROCESSING = "post_processing"  # its post-processing job is queued or running
    FINISHED = "finished"  # every phase ended; students may have failed
    FAILED = "failed"  # pre- or post-processing failed
    CANCELLED = "cancelled"  # ended by staff

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to the run any more."""
        return self in (RunState.FINISHED, RunState.FAILED, RunState.CANCELLED)


class JobType(StrEnum):
    """Which of the run's pipelines a job is an instance of."""

    PRE_PROCESSING = "pre_processing"
    STUDENT = "student"
    POST_PROCESSING = "post_processing"


class JobState(StrEnum):
    """`waiting → queued → running → succeeded | failed | cancelled`; `running → queued` when a lease runs out."""

    WAITING = "waiting"  # its phase has not opened
    QUEUED = "queued"  # a worker may claim it
    RUNNING = "running"  # a worker holds a lease on it
    SUCCEEDED = "succeeded"  # every stage exited with 0
    FAILED = "failed"  # see its reason
    CANCELLED = "cancelled"  # it never ran, or was stopped by staff

    @property
    def ended(self) -> bool:
        """Whether the job has its one accepted outcome."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Reason(StrEnum):
    """Why a job did not succeed: who is to blame."""

    STAGE_FAILED = "stage_failed"  # a stage exited with another code than 0
    TIMEOUT = "timeout"  # a stage took longer than it may
    OUT_OF_MEMORY = "out_of_memory"  # a stage was killed at its memory limit
    OUTPUT_LIMIT = "output_limit"  # a stage was stopped for what it printed
    DISK_LIMIT = "disk_limit"  # a stage was stopped for what it wrote to /job
    IMAGE_UNAVAILABLE = "image_unavailable"  # the image is neither there nor to be pulled
    RUNTIME_ERROR = "runtime_error"  # the grader or its engine failed
    WORKER_LOST = "worker_lost"  # leases ran out as often as a job may be handed out
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105  # a secret that it needs was deleted, or does not open
    CANCELLED = "cancelled"  # ended by staff, or its run failed before it could run

    @property
    def is_infrastructure(self) -> bool:
        """Whether the fleet is to blame; such a failure is retried by itself, a student's never is."""
        return self in (Reason.IMAGE_UNAVAILABLE, Reason.RUNTIME_ERROR, Reason.WORKER_LOST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One container of a pipeline. None: left to the image, the engine or the grader."""

    image: str
    env: StageEnv = field(default_factory=dict)
    entry_point: tuple[str, ...] | None = None
    enable_networking: bool = False
    host_name: str | None = None
    timeout: float = 30  # seconds, without pulling the image
    memory: int | str | None = None  # bytes, or with a unit: "512m"
    cpus: float | None = None
    pids: int | None = None
    cpuset_cpus: str | None = None  # which CPUs: "0-2,5"
    logs: bool = True
    user: str | None = None
    working_dir: str | None = None
    privileged: bool = False
    results: bool = False  # it writes /job/results.json; at most one stage of a pipeline does
    read_only: bool | None = None  # the root file system
    require: tuple[str, ...] = ()  # labels that its worker must have: `gpu`, `arch=arm64`

    @property
    def secrets(self) -> Mapping[str, str]:
        """The variables that take secrets, with the secrets' names."""
        return {name: value.name for name, value in self.env.items() if isinstance(value, SecretRef)}


Pipeline = tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """What a course hands in, without the students: each of those is in its own job."""

    student_pipeline: Pipeline
    pre_processing_pipeline: Pipeline | None = None
    post_processing_pipeline: Pipeline | None = None
    env: Env = field(default_factory=dict)
    require: tuple[str, ...] = ()  # labels that the worker of each of its jobs must have

    def pipeline(self, job_type: JobType) -> Pipeline:
        """The stages of the jobs of a type; empty if the run has no such jobs."""
        match job_type:
            case JobType.STUDENT:
                return self.student_pipeline
            case JobType.PRE_PROCESSING:
                return self.pre_processing_pipeline or ()
            case JobType.POST_PROCESSING:
                return self.post_processing_pipeline or ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The grading of one assignment."""

    id: str
    course: str = DEFAULT_COURSE
    state: RunState = RunState.READY
    priority: int = 0  # of its jobs
    config: RunConfig
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


@value_of_a_job(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One ended attempt at a job that left the job unfinished, or finished it."""

    number: int
    worker_id: str
    reason: Reason | None  # None: it succeeded, or its worker handed it back
    started_at: datetime
    finished_at: datetime
    reported: bool  # by the worker; otherwise its lease ran out, or the job was handed back or taken away


@value_of_a_job(frozen=True, kw_only=True, slots=True)
class Job:
    """One instance of a pipeline.

    `attempt` is the fencing token: it grows by one with every claim and never falls. The job fails with an
    infrastructure reason once `attempt` has reached `attempt_limit`.
    """

    id: str
    run_id: str
    type: JobType
    seq: int  # place in the run: 0 pre-processing, 1… the roster, then post-processing
    student: Env | None = None  # its roster entry, student jobs only
    state: JobState = JobState.WAITING
    priority: int = 0  # the higher, the sooner
    requirement: str = ""  # what its worker must have, see `capabilities`
    reason: Reason | None = None
    attempt: int = 0
    attempt_limit: int
    worker_id: str | None = None  # who holds it or ended it
    lease_expires_at: datetime | None = None  # running jobs only
    avoid_worker_id: str | None = None  # who failed it last; another worker is to try first,
    avoid_until: datetime | None = None  # but nobody waits for one longer than this
    queued_at: datetime | None = None
    started_at: datetime | None = None  # of the current attempt
    finished_at: datetime | None = None
    attempts: tuple[Attempt, ...] = ()  # the ended ones, oldest first
    info: tuple[Mapping[str, Any], ...] = ()  # per stage that ran, without its output
    score: float | None = None  # of its results; ended jobs only
    max_score: float | None = None
    results: Mapping[str, Any] | None = None  # in the normal form of `results.RESULTS`
    cause: str = ""  # of its failure, see `causes`
    said: str = ""  # the line that its cause was made of


@value_of_a_job(frozen=True, kw_only=True, slots=True)
class Claim:
    """A worker's right to end a job: what every write of a worker carries.

    `attempt` is None for workers of the first releases, which do not know theirs; the worker's id alone fences them.
    """

    job_id: str
    worker_id: str
    attempt: int | None


@value_of_a_job(frozen=True, kw_only=True, slots=True)
class StageLog:
    """What one stage printed."""

    stage: int  # from 0
    stdout: str
    stderr: str


@value_of_a_job(frozen=True, kw_only=True, slots=True)
class Result:
    """What a worker says came of a job."""

    success: bool
    reason: Reason | None  # None if and only if it succeeded
    info: tuple[Mapping[str, Any], ...] = ()
    logs: tuple[StageLog, ...] = ()
    results: Mapping[str, Any] | None = None  # in the normal form of `results.RESULTS`


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """A registered grader process."""

    id: str
    hostname: str
    slots: int = 1  # jobs at a time
    runtime: str = ""
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    registered_at: datetime
    last_seen: datetime
    jobs_processed: int = 0
    draining: bool = False  # gets no new jobs, at staff's wish
    strikes: int = 0  # infrastructure faults since the last job that ended otherwise
    quarantined_until: datetime | None = None  # gets no new jobs; after that time one at a time, as a probe
    name: str | None = None  # the id that it chose itself, in the course protocol; no two at a time have one
    asked_at: datetime | None = None  # when it last asked for work
    owner: str | None = None  # whose worker tokens may speak for it; None: the operator's only


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedSecret:
    """A course's secret as the store keeps it: of no use without the API's key."""

    course: str
    name: str
    sealed: str = field(repr=False)
    changed_at: datetime


class WorkerState(StrEnum):
    """What a worker is up to, as far as the API knows; the first that fits."""

    LOST = "lost"  # not heard of for as long as a lease lasts
    DRAINING = "draining"  # gets no new jobs, at staff's wish
    QUARANTINED = "quarantined"  # gets no new jobs but, when its time is over, one as a probe
    ALIVE = "alive"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProgress:
    """What decides a run's next step; see `lifecycle.next_step`."""

    run: Run
    unopened: bool  # the current phase has a job that is waiting
    unfinished: bool  # the current phase has a job that has not ended
    failed: bool  # the current phase has a job that has ended without success
    leftover: bool  # any phase has a job that has not ended


@dataclass(frozen=True, kw_only=True, slots=True)
class Stranded:
    """Queued jobs that no worker can run."""

    requirement: str
    jobs: int
    message: str  # for people: what is missing


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """A run and what its jobs amount to."""

    run: Run
    counts: Mapping[JobState, int]
    reasons: Mapping[Reason, int]
    queued: Mapping[JobType, int]  # how many of each type; no zeros
    pre_processing_job: Job | None
    post_processing_job: Job | None
    stranded: tuple[Stranded, ...] = ()  # what no worker can run; a store knows of none
    seconds_left: float | None = None  # see `forecast`; a store does not know


@dataclass(frozen=True, kw_only=True, slots=True)
class IdempotencyKey:
    """A client's name for one creation, and the digest of what it asked for."""

    key: str
    fingerprint: str


@value_of_a_job(frozen=True, kw_only=True, slots=True)
class FinishedJob:
    """A job after a result was accepted, now or earlier."""

    job: Job
    phase_over: bool  # no job of its phase is left unfinished; the run may go on
    repeated: bool = False  # the result had been accepted before; nothing was changed now


@dataclass(frozen=True, kw_only=True, slots=True)
class LostJob:
    """A job taken from its worker."""

    job_id: str
    run_id: str
    worker_id: str
    state: JobState  # queued again, or failed
    requirement: str = ""


class JobSort(StrEnum):
    """What a list of jobs may be sorted by; what has none of it comes last."""

    ROSTER = "roster"
    STATE = "state"  # and reason
    SCORE = "score"
    DURATION = "duration"
    FINISHED = "finished"
    ATTEMPT = "attempt"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobQuery:
    """Which jobs of a run somebody looks for, and in what order."""

    text: str = ""  # stands somewhere in the roster entry, in whatever case, or is the job's id
    states: tuple[JobState, ...] = ()  # empty: all
    reason: Reason | None = None
    cause: str | None = None
    sort: JobSort = JobSort.ROSTER
    descending: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Failed jobs of a run that failed for one reason and said the same."""

    reason: Reason
    text: str  # see `causes`
    jobs: int
    example: Job  # the first of them in the roster


@dataclass(frozen=True, kw_only=True, slots=True)
class JobMeasure:
    """What a student's job that ended can be measured by."""

    milliseconds: int | None  # of its last attempt
    score: float | None
    max_score: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CourseQueue:
    """What a course has in the queue."""

    depth: int  # jobs that are queued
    oldest: datetime  # when the one that has waited longest was queued
    requirements: Mapping[str, int]  # what they require, and how many of them that

    @classmethod
    def of(cls, requirement: str, depth: int, queued_at: datetime) -> CourseQueue:
        """Jobs that were queued at one time and require one thing."""
        return cls(depth=depth, oldest=queued_at, requirements={requirement: depth})

    def beside(self, other: CourseQueue | None) -> CourseQueue:
        """These and others."""
        if other is None:
            return self
        requirements = dict(other.requirements)
        for requirement, depth in self.requirements.items():
            requirements[requirement] = requirements.get(requirement, 0) + depth
        return CourseQueue(
            depth=self.depth + other.depth, oldest=min(self.oldest, other.oldest), requirements=requirements
        )


class DeliveryState(StrEnum):
    """How telling a webhook of something goes."""

    PENDING = "pending"  # to be told, or told again
    HEARD = "heard"  # answered with 2xx
    GIVEN_UP = "given_up"  # the last attempt was made, and not answered so


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """Something to be told to a webhook until it was heard."""

    id: str  # the same however often it is told
    run_id: str  # what it is about
    body: str
    attempts: int = 0  # how often it was taken to be told
    created_at: datetime
    due_at: datetime | None  # when it is told next; None once it was heard or given up
    heard_at: datetime | None = None
    fault: str | None = None  # why the last attempt that is over was not heard

    @property
    def state(self) -> DeliveryState:
        """Whether it was heard, or still may be."""
        if self.heard_at is not None:
            return DeliveryState.HEARD
        return DeliveryState.GIVEN_UP if self.due_at is None else DeliveryState.PENDING


Jobs = Sequence[Job]
