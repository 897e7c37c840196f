"""Jobs in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

from broadway_api import lifecycle
from broadway_api.domain import Claim, FinishedJob, Job, JobState, LostJob, Reason, Result, StageLog
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.records import to_millis
from broadway_api.store.sqlite_queries import (
    BRIEFLY,
    UNFINISHED,
    SqlitePart,
    any_job,
    read_job,
    read_jobs,
    take_back,
    write_outcome,
)

#: Characters of logs that a brief write holds at most.
_BRIEF_LOGS = 262_144


class SqliteJobs(SqlitePart):
    """Jobs: ended, taken back, read."""

    async def finish_job(self, claim: Claim, result: Result, now: datetime) -> FinishedJob:
        return await self._write(lambda db: _finish(db, claim, result, now), brief=_are_brief([(claim, result)]))

    async def finish_jobs(
        self, results: Sequence[tuple[Claim, Result]], now: datetime
    ) -> list[FinishedJob | ClaimLost | JobNotFound]:
        def work(db: sqlite3.Connection) -> list[FinishedJob | ClaimLost | JobNotFound]:
            return [_finish_or_refuse(db, claim, result, now) for claim, result in results]

        return await self._write(work, brief=_are_brief(results))

    async def expire_leases(self, now: datetime, lease: timedelta) -> list[LostJob]:
        def work(db: sqlite3.Connection) -> list[LostJob]:
            db.execute(
                "UPDATE jobs SET lease_expires_at = ?1 WHERE state = 'running' AND lease_expires_at > ?1",
                (to_millis(now + lease),),
            )
            expired = read_jobs(db, "WHERE state = 'running' AND lease_expires_at <= ?", (to_millis(now),))
            return take_back(db, [(job, lifecycle.after_lost_lease(job, now)) for job in expired])

        return await self._write(work)

    async def finished_elsewhere(self, run_id: str, worker_id: str) -> bool:
        blameless = "state IN ('succeeded', 'failed') AND worker_id <> ?"
        infrastructure = ", ".join(f"'{reason}'" for reason in Reason if reason.is_infrastructure)
        return await self._read(
            lambda db: any_job(
                db,
                f"run_id = ? AND {blameless} AND ifnull(reason, '') NOT IN ({infrastructure})",
                (run_id, worker_id),
            )
        )

    async def job(self, job_id: str) -> Job:
        return await self._read(lambda db: read_job(db, job_id))

    async def job_log(self, job_id: str, stage: int | None = None) -> list[StageLog]:
        def work(db: sqlite3.Connection) -> list[StageLog]:
            reported = [attempt.number for attempt in read_job(db, job_id).attempts if attempt.reported]
            rows = db.execute(
                "SELECT stage, stdout, stderr FROM logs WHERE job_id = ? AND attempt = ? AND stage = ifnull(?, stage)"
                " ORDER BY stage",
                (job_id, reported[-1] if reported else 0, stage),
            )
            return [StageLog(stage=row["stage"], stdout=row["stdout"], stderr=row["stderr"]) for row in rows]

        return await self._read(work)


def _are_brief(results: Sequence[tuple[Claim, Result]]) -> bool:
    logs = (log for _, result in results for log in result.logs)
    return len(results) <= BRIEFLY and sum(len(log.stdout) + len(log.stderr) for log in logs) <= _BRIEF_LOGS


def _finish(db: sqlite3.Connection, claim: Claim, result: Result, now: datetime) -> FinishedJob:
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


def _finish_or_refuse(
    db: sqlite3.Connection, claim: Claim, result: Result, now: datetime
) -> FinishedJob | ClaimLost | JobNotFound:
    try:
        return _finish(db, claim, result, now)
    except (ClaimLost, JobNotFound) as refusal:  # raised before anything was changed
        return refusal


def _credit(db: sqlite3.Connection, worker_id: str, *, ended: bool, blamed: bool) -> None:
    """Count a job for the worker that ended it; unless it is to blame for how, nothing speaks against it any more."""
    db.execute(
        "UPDATE workers SET jobs_processed = jobs_processed + ?1, strikes = iif(?2, strikes, 0),"
        " quarantined_until = iif(?2, quarantined_until, NULL) WHERE id = ?3",
        (ended, blamed, worker_id),
    )
