"""Runs in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from broadway_api import lifecycle
from broadway_api.domain import IdempotencyKey, Job, JobState, JobType, Reason, Run, RunProgress, RunState, RunSummary
from broadway_api.errors import IdempotencyMismatch, RunAlreadyStarted
from broadway_api.store import records
from broadway_api.store.records import to_millis
from broadway_api.store.sqlite_places import forget_openings
from broadway_api.store.sqlite_queries import (
    UNFINISHED,
    SqlitePart,
    any_job,
    marks,
    read_jobs,
    read_run,
    write_outcomes,
)
from broadway_api.store.sqlite_ranks import reserve_ranks
from broadway_api.store.sqlite_schema import LISTED_COLUMNS, run_from_row

_ENDED = "state IN ('finished', 'failed', 'cancelled')"


class SqliteRuns(SqlitePart):
    """Runs: made, moved on, tried again, read, deleted."""

    async def create_run(self, run: Run, jobs: Sequence[Job], *, idempotency: IdempotencyKey | None = None) -> str:
        def work(db: sqlite3.Connection) -> str:
            if db.execute("SELECT 1 FROM runs WHERE id = ?", (run.id,)).fetchone():
                return run.id  # this very call, repeated
            if idempotency:
                earlier = db.execute(
                    "SELECT id, idempotency_fingerprint FROM runs WHERE course = ? AND idempotency_key = ?",
                    (run.course, idempotency.key),
                ).fetchone()
                if earlier:
                    if earlier["idempotency_fingerprint"] != idempotency.fingerprint:
                        raise IdempotencyMismatch(idempotency.key)
                    return str(earlier["id"])
            db.executemany(
                "INSERT INTO jobs (id, run_id, type, seq, student, state, priority, requirement, attempt,"
                " attempt_limit) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        job.id,
                        job.run_id,
                        job.type,
                        job.seq,
                        None if job.student is None else records.to_text(job.student),
                        job.state,
                        job.priority,
                        job.requirement,
                        job.attempt,
                        job.attempt_limit,
                    )
                    for job in jobs
                ),
            )
            db.execute(
                "INSERT INTO runs (id, course, state, priority, config, created_at, idempotency_key,"
                " idempotency_fingerprint) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run.id,
                    run.course,
                    run.state,
                    run.priority,
                    records.config_to_text(run.config),
                    to_millis(run.created_at),
                    idempotency and idempotency.key,
                    idempotency and idempotency.fingerprint,
                ),
            )
            return run.id

        return await self._write(work)

    async def start_run(self, run_id: str, first: RunState, now: datetime) -> None:
        def work(db: sqlite3.Connection) -> None:
            changed = db.execute(
                "UPDATE runs SET state = ?, started_at = ? WHERE id = ? AND state = 'ready'",
                (first, to_millis(now), run_id),
            ).rowcount
            if not changed:
                raise RunAlreadyStarted(run_id, read_run(db, run_id).state)

        await self._write(work)

    async def open_phase(self, run_id: str, job_type: JobType, now: datetime) -> int:
        def work(db: sqlite3.Connection) -> int:
            waiting = "run_id = ? AND type = ? AND state = 'waiting'"
            number, requirement = db.execute(
                f"SELECT count(*), max(requirement) FROM jobs WHERE {waiting}", (run_id, job_type)
            ).fetchone()
            if number:
                run = read_run(db, run_id)
                first, step = reserve_ranks(db, run, job_type, requirement, number, now)
                in_order = f"SELECT id, row_number() OVER (ORDER BY seq) - 1 AS number FROM jobs WHERE {waiting}"
                db.execute(
                    "UPDATE jobs SET state = 'queued', queued_at = ?, rank = ? + opened.number * ?"
                    f" FROM ({in_order}) AS opened WHERE jobs.id = opened.id",
                    (to_millis(now), first, step, run_id, job_type),
                )
                db.execute(
                    "INSERT OR REPLACE INTO openings VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (run_id, job_type, requirement, run.priority, first, step, number),
                )
            return int(number)

        return await self._write(work)

    async def advance_run(self, run_id: str, *, leaving: RunState, to: RunState, now: datetime) -> bool:
        return await self._write(
            lambda db: (
                db.execute(
                    "UPDATE runs SET state = ?, finished_at = ? WHERE id = ? AND state = ?",
                    (to, to_millis(now) if to.ended else None, run_id, leaving),
                ).rowcount
                == 1
            )
        )

    async def cancel_jobs(self, run_id: str, now: datetime) -> int:
        def work(db: sqlite3.Connection) -> int:
            if not db.execute(f"SELECT 1 FROM runs WHERE id = ? AND {_ENDED}", (run_id,)).fetchone():
                return 0
            forget_openings(db, run_id)
            held = read_jobs(db, "WHERE run_id = ? AND state = 'running'", (run_id,))
            write_outcomes(db, (lifecycle.after_cancel(job, now) for job in held))
            return (
                len(held)
                + db.execute(
                    "UPDATE jobs SET state = 'cancelled', reason = 'cancelled', finished_at = ?"
                    f" WHERE run_id = ? AND {UNFINISHED}",
                    (to_millis(now), run_id),
                ).rowcount
            )

        return await self._write(work)

    async def retry_jobs(
        self, run_id: str, job_ids: Sequence[str], attempts: int, *, leaving: RunState, to: RunState
    ) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            reopened = db.execute(
                "UPDATE runs SET state = ?, finished_at = NULL, settled = 0 WHERE id = ? AND state = ? AND settled",
                (to, run_id, leaving),
            ).rowcount
            if reopened:
                forget_openings(db, run_id)
                db.executemany(
                    "UPDATE jobs SET state = 'waiting', attempt_limit = attempt + ?, reason = NULL, worker_id = NULL,"
                    " rank = NULL, queued_at = NULL, started_at = NULL, finished_at = NULL, info = '[]',"
                    " avoid_worker_id = NULL, avoid_until = NULL, score = NULL, max_score = NULL, results = NULL,"
                    " cause = '', said = ''"
                    " WHERE id = ? AND run_id = ? AND state IN ('succeeded', 'failed', 'cancelled')",
                    ((attempts, job_id, run_id) for job_id in job_ids),
                )
            return bool(reopened)

        return await self._write(work)

    async def is_settled(self, run_id: str) -> bool:
        return await self._read(lambda db: _is_settled(db, run_id))

    async def delete_runs(self, finished_before: datetime, limit: int) -> list[str]:
        def work(db: sqlite3.Connection) -> list[str]:
            old = db.execute(
                "SELECT id FROM runs WHERE settled = 1 AND finished_at IS NOT NULL AND finished_at < ?"
                " ORDER BY finished_at LIMIT ?",
                (to_millis(finished_before), limit),
            ).fetchall()
            for row in old:
                db.execute("DELETE FROM logs WHERE job_id IN (SELECT id FROM jobs WHERE run_id = ?)", (row["id"],))
                db.execute("DELETE FROM jobs WHERE run_id = ?", (row["id"],))
                db.execute("DELETE FROM runs WHERE id = ?", (row["id"],))
            return [row["id"] for row in old]

        return await self._write(work)

    async def forget_half_created(self, created_before: datetime) -> int:
        return 0  # a run and its jobs are one transaction

    async def settle_run(self, run_id: str) -> None:
        def work(db: sqlite3.Connection) -> None:
            if db.execute(f"UPDATE runs SET settled = 1 WHERE id = ? AND {_ENDED}", (run_id,)).rowcount:
                forget_openings(db, run_id)

        await self._write(work)

    async def unsettled_runs(self) -> list[str]:
        return await self._read(
            lambda db: [
                row["id"]
                for row in db.execute("SELECT id FROM runs WHERE settled = 0 AND state <> 'ready' ORDER BY id")
            ]
        )

    async def run_progress(self, run_id: str) -> RunProgress:
        def work(db: sqlite3.Connection) -> RunProgress:
            run = read_run(db, run_id)
            phase = lifecycle.PHASES.get(run.state)

            def some(states: str) -> bool:
                return phase is not None and any_job(db, f"run_id = ? AND type = ? AND {states}", (run_id, phase))

            return RunProgress(
                run=run,
                unopened=some("state = 'waiting'"),
                unfinished=some(UNFINISHED),
                failed=some("state IN ('failed', 'cancelled')"),
                leftover=any_job(db, f"run_id = ? AND {UNFINISHED}", (run_id,)),
            )

        return await self._read(work)

    async def run(self, run_id: str) -> Run:
        return await self._read(lambda db: read_run(db, run_id))

    async def run_summary(self, run_id: str) -> RunSummary:
        def work(db: sqlite3.Connection) -> RunSummary:
            run = read_run(db, run_id)
            counts = dict.fromkeys(JobState, 0)
            reasons: dict[Reason, int] = {}
            queued: dict[JobType, int] = {}
            for state, job_type, reason, number in db.execute(
                "SELECT state, type, reason, count(*) FROM jobs WHERE run_id = ? GROUP BY state, type, reason",
                (run_id,),
            ):
                counts[JobState(state)] += number
                if state == JobState.QUEUED:
                    queued[JobType(job_type)] = number
                if reason is not None:
                    reasons[Reason(reason)] = reasons.get(Reason(reason), 0) + number
            ends = {
                job.type: job
                for job in read_jobs(db, f"WHERE run_id = ? AND type <> '{JobType.STUDENT}' ORDER BY seq", (run_id,))
            }
            return RunSummary(
                run=run,
                counts=counts,
                reasons=reasons,
                queued=queued,
                pre_processing_job=ends.get(JobType.PRE_PROCESSING),
                post_processing_job=ends.get(JobType.POST_PROCESSING),
            )

        return await self._read(work)

    async def runs(
        self, *, state: RunState | None = None, course: str | None = None, limit: int, after: str | None = None
    ) -> list[Run]:
        conditions = {"state = ?": state, "course = ?": course, "id < ?": after}
        given = {condition: value for condition, value in conditions.items() if value is not None}
        where = " AND ".join(given) or "true"
        return await self._read(
            lambda db: [
                run_from_row(row)
                for row in db.execute(
                    f"SELECT * FROM runs WHERE {where} ORDER BY id DESC LIMIT ?",
                    (*given.values(), limit),
                )
            ]
        )

    async def run_jobs(
        self, run_id: str, *, states: Sequence[JobState] = (), limit: int, after: int | None = None
    ) -> list[Job]:
        wanted = states or tuple(JobState)
        return await self._read(
            lambda db: read_jobs(
                db,
                f"WHERE run_id = ? AND seq > ? AND state IN ({marks(wanted)}) ORDER BY seq LIMIT ?",
                (run_id, -1 if after is None else after, *wanted, limit),
                columns=LISTED_COLUMNS,
            )
        )

    async def roster(self, run_id: str) -> list[Mapping[str, Any]]:
        return await self._read(
            lambda db: [
                records.from_text(row["student"])
                for row in db.execute(
                    "SELECT student FROM jobs WHERE run_id = ? AND student IS NOT NULL ORDER BY seq", (run_id,)
                )
            ]
        )


def _is_settled(db: sqlite3.Connection, run_id: str) -> bool:
    return db.execute("SELECT 1 FROM runs WHERE id = ? AND settled = 1", (run_id,)).fetchone() is not None
