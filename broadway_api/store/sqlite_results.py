"""How the SQLite store takes results, each within its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from broadway_api import lifecycle
from broadway_api.domain import Claim, FinishedJob, Job, JobState, Result
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.sqlite_queries import UNFINISHED, any_job, read_job, write_outcome


def accept(db: sqlite3.Connection, claim: Claim, result: Result, now: datetime) -> FinishedJob:
    """Take one result, see `Store.finish_job`. Raises ClaimLost, JobNotFound, before anything is changed."""
    (answer,) = accept_each(db, [(claim, result)], now)
    if isinstance(answer, FinishedJob):
        return answer
    raise answer


def accept_each(
    db: sqlite3.Connection, results: Sequence[tuple[Claim, Result]], now: datetime
) -> list[FinishedJob | ClaimLost | JobNotFound]:
    """Take several, see `Store.finish_jobs`."""
    ends = [_end(db, claim, result, now) for claim, result in results]
    ended: Counter[str] = Counter()
    blameless: set[str] = set()
    for (claim, result), end in zip(results, ends, strict=True):
        if isinstance(end, _End) and not end.repeated:
            ended[claim.worker_id] += end.job.state.ended
            if not (result.reason and result.reason.is_infrastructure):
                blameless.add(claim.worker_id)
    for worker_id, number in ended.items():
        _credit(db, worker_id, ended=number, blamed=worker_id not in blameless)
    phases = {(end.job.run_id, end.job.type) for end in ends if isinstance(end, _End)}
    open_ones = {phase for phase in phases if any_job(db, f"run_id = ? AND type = ? AND {UNFINISHED}", phase)}
    return [
        FinishedJob(job=end.job, phase_over=(end.job.run_id, end.job.type) not in open_ones, repeated=end.repeated)
        if isinstance(end, _End)
        else end
        for end in ends
    ]


class _End(NamedTuple):
    """A job after its result, and whether that had been taken before."""

    job: Job
    repeated: bool


def _end(db: sqlite3.Connection, claim: Claim, result: Result, now: datetime) -> _End | ClaimLost | JobNotFound:
    try:
        job = read_job(db, claim.job_id)
    except JobNotFound as refusal:
        return refusal
    if job.state is JobState.RUNNING and job.worker_id == claim.worker_id and claim.attempt in (None, job.attempt):
        attempt, job = job.attempt, lifecycle.after_result(job, result, now)
        write_outcome(db, job)
        for log in result.logs:
            db.execute(
                "INSERT OR REPLACE INTO logs (job_id, attempt, stage, stdout, stderr) VALUES (?, ?, ?, ?, ?)",
                (job.id, attempt, log.stage, log.stdout, log.stderr),
            )
        return _End(job, repeated=False)
    if lifecycle.is_repeat(job, claim.worker_id, claim.attempt):
        return _End(job, repeated=True)
    return ClaimLost(claim.job_id, claim.worker_id, claim.attempt)


def _credit(db: sqlite3.Connection, worker_id: str, *, ended: int, blamed: bool) -> None:
    """Count jobs for the worker that ended them; unless it is to blame for all, nothing speaks against it any more."""
    db.execute(
        "UPDATE workers SET jobs_processed = jobs_processed + ?1, strikes = iif(?2, strikes, 0),"
        " quarantined_until = iif(?2, quarantined_until, NULL) WHERE id = ?3",
        (ended, blamed, worker_id),
    )
