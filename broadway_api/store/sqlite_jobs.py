"""Jobs in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from broadway_api import lifecycle
from broadway_api.domain import Job, LostJob, Reason, StageLog
from broadway_api.store.records import to_millis
from broadway_api.store.sqlite_queries import (
    SqlitePart,
    any_job,
    read_job,
    read_jobs,
    take_back,
)


class SqliteJobs(SqlitePart):
    """Jobs: taken back, read."""

    async def expire_leases(self, now: datetime, lease: timedelta) -> list[LostJob]:
        outside = "INDEXED BY jobs_held WHERE state = 'running' AND NOT lease_expires_at BETWEEN ? AND ?"
        until = now + lease

        def work(db: sqlite3.Connection) -> list[LostJob]:
            expired, cut = [], []
            for job in read_jobs(db, outside, (to_millis(now) + 1, to_millis(until))):
                if job.lease_expires_at is not None and job.lease_expires_at > until:
                    cut.append((to_millis(until), job.id))
                else:
                    expired.append(job)
            db.executemany("UPDATE jobs SET lease_expires_at = ? WHERE id = ?", cut)
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
