"""Workers, and what waits for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broadway_client.codec import Answer, OpenEnum


class WorkerState(OpenEnum):
    """How the API sees a worker."""

    ALIVE = "alive"
    LOST = "lost"
    DRAINING = "draining"
    QUARANTINED = "quarantined"


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
class Health(Answer):
    """The API works; `loop_lag_seconds` is told to operators only."""

    store: str
    loop_lag_seconds: float | None = None
