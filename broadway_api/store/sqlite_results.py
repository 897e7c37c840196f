"""How the SQLite store takes results, each within its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime

from broadway_api import lifecycle
from broadway_api.domain import Claim, FinishedJob, JobState, Result
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.sqlite_queries import UNFINISHED, any_job, read_job, write_outcome


def accept(db: sqlite3.Connection, claim: Claim, result: Result, now: datetime) -> FinishedJob:
    """Take one result, see `Store.finish_job`. Raises ClaimLost, JobNotFound, before anything is changed."""
    job = read_job(db, claim.job_id)
    held = job.state is JobState.RUNNING and job.worker_id == claim.worker_id and claim.attempt in (None, job.attempt)
    if held:
        attempt, job = job.attempt, lifecycle.after_result(job, result, now)
        write_outcome(db, job)
        for log in result.logs:
            db.execute(
                "INSERT OR REPLACE INTO logs (job_id, attempt, stage, stdout, stderr) VALUES (?, ?, ?, ?, ?)",
                (job.id, attempt, log.stage, log.stdout, log.stderr),
            )
        _credit(
            db, claim.worker_id, ended=job.state.ended, blamed=bool(result.reason and result.reason.is_infrastructure)
        )
    elif not lifecycle.is_repeat(job, claim.worker_id, claim.attempt):
        raise ClaimLost(claim.job_id, claim.worker_id, claim.attempt)
    unfinished = any_job(db, f"run_id = ? AND type = ? AND {UNFINISHED}", (job.run_id, job.type))
    return FinishedJob(job=job, phase_over=not unfinished, repeated=not held)


def accept_each(
    db: sqlite3.Connection, results: Iterable[tuple[Claim, Result]], now: datetime
) -> list[FinishedJob | ClaimLost | JobNotFound]:
    """Take several, see `Store.finish_jobs`."""
    answers: list[FinishedJob | ClaimLost | JobNotFound] = []
    for claim, result in results:
        try:
            answers.append(accept(db, claim, result, now))
        except (ClaimLost, JobNotFound) as refusal:
            answers.append(refusal)
    return answers


def _credit(db: sqlite3.Connection, worker_id: str, *, ended: bool, blamed: bool) -> None:
    """Count a job for the worker that ended it; unless it is to blame for how, nothing speaks against it any more."""
    db.execute(
        "UPDATE workers SET jobs_processed = jobs_processed + ?1, strikes = iif(?2, strikes, 0),"
        " quarantined_until = iif(?2, quarantined_until, NULL) WHERE id = ?3",
        (ended, blamed, worker_id),
    )
