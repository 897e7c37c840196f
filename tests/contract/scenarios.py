"""What the tests of the contract have in common: runs of any shape, and the steps that lead to where a test begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, SupportsIndex, overload

from broadway_api.domain import (
    Claim,
    Env,
    IdempotencyKey,
    Job,
    JobState,
    JobType,
    Reason,
    Result,
    Run,
    RunConfig,
    RunState,
    Stage,
    StageLog,
    Worker,
)
from broadway_api.ids import new_id
from broadway_api.lifecycle import PHASES, first_phase
from broadway_api.store.port import Store

NOW = datetime(2026, 1, 31, 9, 30, 0, 123_000, tzinfo=UTC)
LEASE = timedelta(seconds=60)
ATTEMPT_LIMIT = 3


def later(seconds: float) -> datetime:
    """So many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


#: When a lease that was given or renewed at NOW is over.
LEASE_OVER = NOW + LEASE


def new_run(
    students: int | Sequence[Env] = 1,
    *,
    pre: bool = False,
    post: bool = False,
    course: str = "default",
    attempt_limit: int = ATTEMPT_LIMIT,
    priority: int = 0,
    require: str = "",
) -> tuple[Run, list[Job]]:
    """A run and its jobs as the service makes them, not stored."""
    roster = [{"NET_ID": f"student{n}"} for n in range(students)] if isinstance(students, int) else students
    pipeline = (Stage(image="grade", entry_point=("make", "grade")),)
    config = RunConfig(
        student_pipeline=pipeline,
        pre_processing_pipeline=pipeline if pre else None,
        post_processing_pipeline=pipeline if post else None,
    )
    run = Run(id=new_id(), course=course, priority=priority, config=config, created_at=NOW)
    entries: list[tuple[JobType, int, Env | None]] = [
        *([(JobType.PRE_PROCESSING, 0, None)] if pre else []),
        *((JobType.STUDENT, seq, student) for seq, student in enumerate(roster, start=1)),
        *([(JobType.POST_PROCESSING, len(roster) + 1, None)] if post else []),
    ]
    jobs = [
        Job(
            id=new_id(),
            run_id=run.id,
            type=job_type,
            seq=seq,
            student=student,
            priority=priority,
            requirement=require,
            attempt_limit=attempt_limit,
        )
        for job_type, seq, student in entries
    ]
    return run, jobs


async def created(
    store: Store, students: int | Sequence[Env] = 1, *, idempotency: IdempotencyKey | None = None, **shape: Any
) -> Run:
    """A new run of that shape, stored and not started."""
    run, jobs = new_run(students, **shape)
    await store.create_run(run, jobs, idempotency=idempotency)
    return run


async def started(store: Store, students: int | Sequence[Env] = 1, *, at: datetime = NOW, **shape: Any) -> Run:
    """A new run of that shape whose first phase is open."""
    run = await created(store, students, **shape)
    phase = first_phase(run.config)
    await store.start_run(run.id, phase, at)
    await store.open_phase(run.id, PHASES[phase], at)
    return replace(run, state=phase, started_at=at)


async def worker(
    store: Store, hostname: str = "grader", *, seen: datetime = NOW, owner: str | None = None, **labels: str
) -> str:
    """The id of a newly registered worker."""
    new = Worker(id=new_id(), hostname=hostname, registered_at=seen, last_seen=seen, owner=owner, labels=labels)
    await store.register_worker(new)
    return new.id


async def claimed(store: Store, worker_id: str, n: int = 1, *, now: datetime = NOW) -> list[Job]:
    """`n` jobs of the queue, now the worker's, which knows of all that it held before."""
    held = [job_id for one, ids in await store.workers() if one.id == worker_id for job_id in ids]
    jobs = await store.claim_jobs(worker_id, n, now, LEASE, holding=held)
    assert len(jobs) == n
    return jobs


async def running(store: Store, **shape: Any) -> Job:
    """The one job of a new run, claimed at NOW by a worker of its own."""
    await started(store, **shape)
    (job,) = await claimed(store, await worker(store))
    return job


def claim_on(job: Job) -> Claim:
    """The claim that a job was handed out with."""
    assert job.worker_id is not None
    return Claim(job_id=job.id, worker_id=job.worker_id, attempt=job.attempt)


def success(
    logs: Sequence[StageLog] = (),
    info: Sequence[Mapping[str, Any]] = (),
    results: Mapping[str, Any] | None = None,
) -> Result:
    """Every stage exited with 0."""
    return Result(success=True, reason=None, logs=tuple(logs), info=tuple(info), results=results)


def failure(reason: Reason = Reason.STAGE_FAILED, logs: Sequence[StageLog] = ()) -> Result:
    """A job that did not succeed."""
    return Result(success=False, reason=reason, logs=tuple(logs))


async def end_all(store: Store, run: Run, result: Result | None = None) -> None:
    """Claim and finish whatever is queued, as one worker."""
    worker_id = await worker(store)
    while jobs := await store.claim_jobs(worker_id, 100, NOW, LEASE):
        for job in jobs:
            await store.finish_job(claim_on(job), result or success(), NOW)


async def cancelled(store: Store, run_id: str, *, at: datetime = NOW) -> int:
    """End a live run with what is left of its jobs; return how many those were."""
    assert await store.advance_run(run_id, leaving=(await store.run(run_id)).state, to=RunState.CANCELLED, now=at)
    return await store.cancel_jobs(run_id, at)


async def states(store: Store, run: Run) -> list[JobState]:
    """The states of a run's jobs, as stored, in order."""
    return [job.state for job in await store.run_jobs(run.id, limit=1_000)]


async def jobs_of(store: Store, run: Run) -> list[Job]:
    """A run's jobs, as stored, in order."""
    return await store.run_jobs(run.id, limit=1_000)


async def state_of(store: Store, run: Run) -> RunState:
    """The state of a run, as stored."""
    return (await store.run(run.id)).state


class Killed(Exception):
    """Whoever did this was killed."""


class BreaksOff(Sequence[Job]):
    """Jobs of which only the first few can be read: whoever stores them dies on the way."""

    def __init__(self, jobs: Sequence[Job], readable: int) -> None:
        self._jobs = jobs
        self._readable = readable

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Job]: ...
    def __getitem__(self, index: Any) -> Any:
        last = index.stop - 1 if isinstance(index, slice) else index
        if last >= self._readable:
            raise Killed
        return self._jobs[index]
