"""What happens next: the rules of runs and jobs as pure functions of values. No I/O, no clock.

The service asks `next_step` again after each step until there is none, so a crash between any two steps leaves
nothing to repair but to ask again. The stores ask what an ended attempt makes of a job, and write the answer only if
the job is still what they read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from broadway_api import causes
from broadway_api.domain import (
    Attempt,
    Job,
    JobState,
    JobType,
    Reason,
    Result,
    RunConfig,
    RunProgress,
    RunState,
    Worker,
    WorkerState,
)

#: The jobs that a live run state is about.
PHASES = {
    RunState.PRE_PROCESSING: JobType.PRE_PROCESSING,
    RunState.STUDENTS: JobType.STUDENT,
    RunState.POST_PROCESSING: JobType.POST_PROCESSING,
}


#: A worker that asks more often than this is noted to be there once in a while only.
NOTED_EVERY = timedelta(milliseconds=250)

#: How long a job that a worker failed is kept for others, if there are any.
RETRY_ELSEWHERE = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenPhase:
    """Queue the waiting jobs of a type."""

    job_type: JobType


@dataclass(frozen=True, kw_only=True, slots=True)
class Advance:
    """Move the run on, if it is still where it was."""

    leaving: RunState
    to: RunState


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelLeftovers:
    """End the jobs that an ended run will never hand out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settle:
    """Nothing is left to do, ever."""


Step = OpenPhase | Advance | CancelLeftovers | Settle


def new_jobs_allowed(worker: Worker, wanted: int, holds: int, now: datetime) -> int:
    """How many new jobs a worker may have that wants some and holds some.

    None while it drains or is in quarantine; when the quarantine is over one at a time, as a probe, until a job has
    ended without blame on the worker.
    """
    if worker.draining or (worker.quarantined_until and now < worker.quarantined_until):
        return 0
    return wanted if worker.quarantined_until is None else max(0, min(wanted, 1 - holds))


def is_to_be_noted(worker: Worker, now: datetime) -> bool:
    """Whether it matters that this worker asks for jobs, which it may do many times a second.

    When a worker of the course protocol asked, which has a name, says which jobs it still works on.
    """
    return worker.name is not None or worker.asked_at is None or abs(now - worker.last_seen) >= NOTED_EVERY


def worker_state(worker: Worker, now: datetime, lost_after: timedelta) -> WorkerState:
    """What a worker is up to."""
    if now - worker.last_seen > lost_after:
        return WorkerState.LOST
    if worker.draining:
        return WorkerState.DRAINING
    return WorkerState.QUARANTINED if worker.quarantined_until else WorkerState.ALIVE


def after_strike(worker: Worker, now: datetime, *, limit: int, pause: timedelta) -> Worker:
    """The worker after an infrastructure fault of its own.

    From the `limit`-th in a row on it is quarantined, for `pause`, and twice as long with each failed probe, up to
    32 times. What it was handed before its quarantine, and fails during it, is no probe.
    """
    if worker.quarantined_until and now < worker.quarantined_until:
        return worker
    strikes = worker.strikes + 1
    if strikes < limit:
        return replace(worker, strikes=strikes)
    return replace(worker, strikes=strikes, quarantined_until=now + pause * 2 ** min(strikes - limit, 5))


def first_phase(config: RunConfig) -> RunState:
    """The state that starting a run leads to."""
    return RunState.PRE_PROCESSING if config.pre_processing_pipeline else RunState.STUDENTS


def phase_of(jobs: Iterable[Job]) -> RunState:
    """The earliest phase that any of the jobs belongs to."""
    types = {job.type for job in jobs}
    return next(state for state, job_type in PHASES.items() if job_type in types)


def after_phase(config: RunConfig, state: RunState, *, failed: bool) -> RunState:
    """The state that the end of a phase leads to; `failed`: one of its jobs did not succeed."""
    if state is RunState.STUDENTS:  # a failing student never fails the run
        return RunState.POST_PROCESSING if config.post_processing_pipeline else RunState.FINISHED
    if failed:
        return RunState.FAILED
    return RunState.STUDENTS if state is RunState.PRE_PROCESSING else RunState.FINISHED


def next_step(progress: RunProgress) -> Step | None:
    """What the run needs now; None while its jobs are being worked on, or before it starts."""
    state = progress.run.state
    if state.ended:
        return CancelLeftovers() if progress.leftover else Settle()
    if state not in PHASES:
        return None
    if progress.unopened:
        return OpenPhase(job_type=PHASES[state])
    if progress.unfinished:
        return None
    return Advance(leaving=state, to=after_phase(progress.run.config, state, failed=progress.failed))


def after_result(job: Job, result: Result, now: datetime) -> Job:
    """The running job after its worker reported."""
    reason = None if result.success else result.reason or Reason.STAGE_FAILED
    changes: dict[str, Any] = _end_of_attempt(job, reason, now, reported=True) | {"info": result.info}
    if reason and reason.is_infrastructure and job.attempt < job.attempt_limit:
        changes |= _queued_again(avoid=job.worker_id, until=now + RETRY_ELSEWHERE)
        return _changed(job, changes)
    if result.results is not None:
        changes |= {name: result.results[name] for name in ("score", "max_score")} | {"results": result.results}
    if reason is None:
        changes |= {"state": JobState.SUCCEEDED, "reason": None}
    else:
        said, cause = causes.told_by(reason, result.info, result.logs, job.student)
        changes |= {"state": JobState.FAILED, "reason": reason, "cause": cause, "said": said}
    return _changed(job, changes)


def after_lost_lease(job: Job, now: datetime) -> Job:
    """The running job after its lease ran out."""
    changes = _end_of_attempt(job, Reason.WORKER_LOST, now, reported=False)
    if job.attempt < job.attempt_limit:
        changes |= _queued_again(avoid=job.worker_id, until=now + RETRY_ELSEWHERE)
    else:
        changes |= {"state": JobState.FAILED, "reason": Reason.WORKER_LOST}
    return _changed(job, changes)


def after_hand_back(job: Job, now: datetime) -> Job:
    """The running job after its worker gave it back unfinished, which costs no attempt."""
    changes = _end_of_attempt(job, None, now, reported=False) | _queued_again()
    return _changed(job, changes | {"attempt_limit": job.attempt_limit + 1})


def after_cancel(job: Job, now: datetime) -> Job:
    """The running job after its run was cancelled, or failed."""
    changes = _end_of_attempt(job, Reason.CANCELLED, now, reported=False)
    return _changed(job, changes | {"state": JobState.CANCELLED, "reason": Reason.CANCELLED})


def is_repeat(job: Job, worker_id: str, attempt: int | None) -> bool:
    """Whether a result of this worker, at this attempt, was accepted before."""
    return any(
        ended.reported and ended.worker_id == worker_id and attempt in (None, ended.number) for ended in job.attempts
    )


def state_after_attempt(job: Job, worker_id: str, attempt: int | None) -> JobState:
    """The state that the result of this worker, accepted before, left the job in: the same whatever came after it."""
    ended = next(
        ended
        for ended in reversed(job.attempts)
        if ended.reported and ended.worker_id == worker_id and attempt in (None, ended.number)
    )
    if ended.reason is None:
        return JobState.SUCCEEDED
    was_retried = ended is not job.attempts[-1] or job.state is not JobState.FAILED
    return JobState.QUEUED if ended.reason.is_infrastructure and was_retried else JobState.FAILED


_JOB_FIELDS = tuple(Job.__dataclass_fields__)
_values_of = attrgetter(*_JOB_FIELDS)


def _changed(job: Job, changes: dict[str, Any]) -> Job:
    """What `replace` does, which looks at each field's definition and takes three times as long."""
    fields = dict(zip(_JOB_FIELDS, _values_of(job), strict=True))
    fields.update(changes)
    return Job(**fields)


def _end_of_attempt(job: Job, reason: Reason | None, now: datetime, *, reported: bool) -> dict[str, Any]:
    """What the end of a running job's attempt changes of it, whatever it leads to.

    Changes are gathered and made at once: each copy of a job costs more than all the rules together.
    """
    if job.state is not JobState.RUNNING or job.worker_id is None or job.started_at is None:
        raise ValueError(f"grading job {job.id} is {job.state}, not running")
    attempt = Attempt(
        number=job.attempt,
        worker_id=job.worker_id,
        reason=reason,
        started_at=job.started_at,
        finished_at=now,
        reported=reported,
    )
    return {"attempts": (*job.attempts, attempt), "finished_at": now, "lease_expires_at": None}


def _queued_again(*, avoid: str | None = None, until: datetime | None = None) -> dict[str, Any]:
    """What is changed of a job that is queued again, with its old rank: lower than any that is queued, so in front."""
    return {
        "state": JobState.QUEUED,
        "reason": None,
        "worker_id": None,
        "started_at": None,
        "finished_at": None,
        "avoid_worker_id": avoid,
        "avoid_until": until,
    }
