"""How the SQLite store takes results, each step within its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from broadway_api import lifecycle
from broadway_api.domain import Claim, FinishedJob, Job, Result
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.sqlite_cache import DispatchCache
from broadway_api.store.sqlite_queries import UNFINISHED, any_job, read_job, write_outcomes

Refusal = ClaimLost | JobNotFound


class Ended(NamedTuple):
    """A job after its result, and whether that had been taken before."""

    job: Job
    repeated: bool


def take_each(
    db: sqlite3.Connection, cache: DispatchCache, results: Sequence[tuple[Claim, Result]], now: datetime
) -> list[Ended | Refusal]:
    """Take several results, see `Store.finish_jobs`."""
    taken: list[Job | None] = []
    logs: list[tuple[str, int, int, str, str]] = []
    ended: dict[str, int] = {}
    blameless: set[str] = set()
    for claim, result in results:
        job = cache.held(db, claim.worker_id).get(claim.job_id)
        if job is None or claim.attempt not in (None, job.attempt):
            taken.append(None)
            continue
        after = lifecycle.after_result(job, result, now)
        cache.keep_end(job, after)
        taken.append(after)
        logs += [(job.id, job.attempt, log.stage, log.stdout, log.stderr) for log in result.logs]
        ended[claim.worker_id] = ended.get(claim.worker_id, 0) + after.state.ended
        if result.reason is None or not result.reason.is_infrastructure:
            blameless.add(claim.worker_id)
    write_outcomes(db, filter(None, taken))
    db.executemany("INSERT OR REPLACE INTO logs (job_id, attempt, stage, stdout, stderr) VALUES (?, ?, ?, ?, ?)", logs)
    for worker_id, number in ended.items():
        _credit(db, cache, worker_id, ended=number, blamed=worker_id not in blameless)
    return [
        _repeated_or_refused(db, claim) if job is None else Ended(job, repeated=False)
        for (claim, _), job in zip(results, taken, strict=True)
    ]


def answers_to(
    db: sqlite3.Connection, cache: DispatchCache, ends: Sequence[Ended | Refusal]
) -> list[FinishedJob | Refusal]:
    """What to answer: looks whether phases are over."""
    phases = {(end.job.run_id, end.job.type) for end in ends if isinstance(end, Ended)}
    open_ones = {
        phase
        for phase in phases
        if cache.is_running(phase) or any_job(db, f"run_id = ? AND type = ? AND {UNFINISHED}", phase)
    }
    return [
        FinishedJob(job=end.job, phase_over=(end.job.run_id, end.job.type) not in open_ones, repeated=end.repeated)
        if isinstance(end, Ended)
        else end
        for end in ends
    ]


def _credit(db: sqlite3.Connection, cache: DispatchCache, worker_id: str, *, ended: int, blamed: bool) -> None:
    """Count jobs for the worker that ended them; unless it is to blame for all, nothing speaks against it any more."""
    cleared = "" if blamed else ", strikes = 0, quarantined_until = NULL"
    db.execute(f"UPDATE workers SET jobs_processed = jobs_processed + ?{cleared} WHERE id = ?", (ended, worker_id))
    if not blamed:
        cache.keep_blameless(worker_id)


def _repeated_or_refused(db: sqlite3.Connection, claim: Claim) -> Ended | Refusal:
    try:
        job = read_job(db, claim.job_id)
    except JobNotFound as refusal:
        return refusal
    if lifecycle.is_repeat(job, claim.worker_id, claim.attempt):
        return Ended(job, repeated=True)
    return ClaimLost(claim.job_id, claim.worker_id, claim.attempt)
