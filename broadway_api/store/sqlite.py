"""The embedded store: one SQLite file, one process. See `port.py` for what each method promises.

Every write runs alone in the writer thread, so a method's reads and writes are one atomic step.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from broadway_api import lifecycle
from broadway_api.domain import (
    Claim,
    FinishedJob,
    IdempotencyKey,
    Job,
    JobState,
    JobType,
    LostJob,
    Reason,
    Result,
    Run,
    RunProgress,
    RunState,
    RunSummary,
    StageLog,
    Worker,
)
from broadway_api.errors import (
    ClaimLost,
    IdempotencyMismatch,
    JobNotFound,
    RunAlreadyStarted,
    RunNotFound,
    UnknownWorker,
)
from broadway_api.store import records
from broadway_api.store.records import to_millis
from broadway_api.store.sqlite_engine import SqliteEngine
from broadway_api.store.sqlite_schema import (
    JOB_COLUMNS,
    SCHEMA,
    SCHEMA_VERSION,
    job_from_row,
    optional_millis,
    run_from_row,
    worker_from_row,
)

_UNFINISHED = "state IN ('waiting', 'queued', 'running')"


class SqliteStore:
    """A store in the file `path`, made with its directory if it is not there."""

    def __init__(self, path: Path) -> None:
        self._engine = SqliteEngine(path, SCHEMA, SCHEMA_VERSION)
        self._write = self._engine.write
        self._read = self._engine.read

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._engine.close()

    async def ping(self) -> None:
        await self._write(lambda db: db.execute("UPDATE queue SET virtual_time = virtual_time").rowcount)

    # --- runs ---------------------------------------------------------------------------------------------------

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
                "INSERT INTO jobs (id, run_id, type, seq, student, state, attempt, attempt_limit)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        job.id,
                        job.run_id,
                        job.type,
                        job.seq,
                        None if job.student is None else records.to_text(job.student),
                        job.state,
                        job.attempt,
                        job.attempt_limit,
                    )
                    for job in jobs
                ),
            )
            db.execute(
                "INSERT INTO runs (id, course, state, config, created_at, idempotency_key, idempotency_fingerprint)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    run.id,
                    run.course,
                    run.state,
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
                raise RunAlreadyStarted(run_id, _run(db, run_id).state)

        await self._write(work)

    async def open_phase(self, run_id: str, job_type: JobType, now: datetime) -> int:
        def work(db: sqlite3.Connection) -> int:
            waiting = "run_id = ? AND type = ? AND state = 'waiting'"
            first, last = db.execute(
                f"SELECT min(seq), max(seq) FROM jobs WHERE {waiting}",
                (run_id, job_type),
            ).fetchone()
            if first is None:
                return 0
            start, weight = _reserve_ranks(db, _run(db, run_id).course, last - first + 1)
            return db.execute(
                f"UPDATE jobs SET state = 'queued', queued_at = ?, rank = ? + (seq - ? + 1) / ? WHERE {waiting}",
                (to_millis(now), start, first, weight, run_id, job_type),
            ).rowcount

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

    async def reopen_run(self, run_id: str, *, leaving: RunState, to: RunState) -> bool:
        return await self._write(
            lambda db: (
                db.execute(
                    "UPDATE runs SET state = ?, finished_at = NULL, settled = 0 WHERE id = ? AND state = ? AND settled",
                    (to, run_id, leaving),
                ).rowcount
                == 1
            )
        )

    async def cancel_jobs(self, run_id: str, now: datetime) -> int:
        return await self._write(
            lambda db: (
                db.execute(
                    "UPDATE jobs SET state = 'cancelled', reason = 'cancelled', finished_at = ?,"
                    f" lease_expires_at = NULL WHERE run_id = ? AND {_UNFINISHED}",
                    (to_millis(now), run_id),
                ).rowcount
            )
        )

    async def retry_jobs(self, run_id: str, job_ids: Sequence[str], attempts: int) -> int:
        def work(db: sqlite3.Connection) -> int:
            db.executemany(
                "UPDATE jobs SET state = 'waiting', attempt_limit = attempt + ?, reason = NULL, worker_id = NULL,"
                " rank = NULL, queued_at = NULL, started_at = NULL, finished_at = NULL, info = '[]'"
                " WHERE id = ? AND run_id = ? AND state IN ('succeeded', 'failed', 'cancelled')",
                ((attempts, job_id, run_id) for job_id in job_ids),
            )
            waiting = "SELECT 1 FROM jobs WHERE id = ? AND run_id = ? AND state = 'waiting'"
            return sum(db.execute(waiting, (job_id, run_id)).fetchone() is not None for job_id in job_ids)

        return await self._write(work)

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

    async def settle_run(self, run_id: str) -> None:
        ended = "state IN ('finished', 'failed', 'cancelled')"
        await self._write(
            lambda db: db.execute(f"UPDATE runs SET settled = 1 WHERE id = ? AND {ended}", (run_id,)).rowcount
        )

    async def unsettled_runs(self) -> list[str]:
        return await self._read(
            lambda db: [
                row["id"]
                for row in db.execute("SELECT id FROM runs WHERE settled = 0 AND state <> 'ready' ORDER BY id")
            ]
        )

    async def run_progress(self, run_id: str) -> RunProgress:
        def work(db: sqlite3.Connection) -> RunProgress:
            run = _run(db, run_id)
            phase = lifecycle.PHASES.get(run.state)

            def some(states: str) -> bool:
                return phase is not None and _exists(db, f"run_id = ? AND type = ? AND {states}", (run_id, phase))

            return RunProgress(
                run=run,
                unopened=some("state = 'waiting'"),
                unfinished=some(_UNFINISHED),
                failed=some("state IN ('failed', 'cancelled')"),
                leftover=_exists(db, f"run_id = ? AND {_UNFINISHED}", (run_id,)),
            )

        return await self._read(work)

    async def run(self, run_id: str) -> Run:
        return await self._read(lambda db: _run(db, run_id))

    async def run_summary(self, run_id: str) -> RunSummary:
        def work(db: sqlite3.Connection) -> RunSummary:
            run = _run(db, run_id)
            counts = dict.fromkeys(JobState, 0)
            reasons: dict[Reason, int] = {}
            for state, reason, number in db.execute(
                "SELECT state, reason, count(*) FROM jobs WHERE run_id = ? GROUP BY state, reason", (run_id,)
            ):
                counts[JobState(state)] += number
                if reason is not None:
                    reasons[Reason(reason)] = reasons.get(Reason(reason), 0) + number
            ends = {
                job.type: job
                for job in _jobs(db, f"WHERE run_id = ? AND type <> '{JobType.STUDENT}' ORDER BY seq", (run_id,))
            }
            return RunSummary(
                run=run,
                counts=counts,
                reasons=reasons,
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
            lambda db: _jobs(
                db,
                f"WHERE run_id = ? AND seq > ? AND state IN ({_marks(wanted)}) ORDER BY seq LIMIT ?",
                (run_id, -1 if after is None else after, *wanted, limit),
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

    # --- workers ------------------------------------------------------------------------------------------------

    async def register_worker(self, worker: Worker) -> None:
        await self._write(
            lambda db: (
                db.execute(
                    "INSERT INTO workers (id, hostname, slots, runtime, version, labels, registered_at, last_seen,"
                    " jobs_processed, draining, strikes, quarantined_until)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        worker.id,
                        worker.hostname,
                        worker.slots,
                        worker.runtime,
                        worker.version,
                        records.to_text(dict(worker.labels)),
                        to_millis(worker.registered_at),
                        to_millis(worker.last_seen),
                        worker.jobs_processed,
                        worker.draining,
                        worker.strikes,
                        optional_millis(worker.quarantined_until),
                    ),
                ).rowcount
            )
        )

    async def heartbeat(
        self, worker_id: str, running: Sequence[Claim] | None, now: datetime, lease: timedelta
    ) -> list[str]:
        def work(db: sqlite3.Connection) -> list[str]:
            _see(db, worker_id, now)
            renew = "UPDATE jobs SET lease_expires_at = ? WHERE worker_id = ? AND state = 'running'"
            until = to_millis(now + lease)
            if running is None:
                db.execute(renew, (until, worker_id))
                return []
            return [
                claim.job_id
                for claim in running
                if not db.execute(
                    renew + " AND id = ? AND attempt = ifnull(?, attempt)",
                    (until, worker_id, claim.job_id, claim.attempt),
                ).rowcount
            ]

        return await self._write(work)

    async def deregister_worker(self, worker_id: str, now: datetime) -> list[LostJob]:
        def work(db: sqlite3.Connection) -> list[LostJob]:
            if not db.execute("DELETE FROM workers WHERE id = ?", (worker_id,)).rowcount:
                raise UnknownWorker(worker_id)
            held = _jobs(db, "WHERE worker_id = ? AND state = 'running'", (worker_id,))
            return _take_back(db, [(job, lifecycle.after_hand_back(job, now)) for job in held])

        return await self._write(work)

    async def worker(self, worker_id: str) -> Worker:
        return await self._read(lambda db: _worker(db, worker_id))

    async def set_draining(self, worker_id: str, draining: bool) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE workers SET draining = ? WHERE id = ?", (draining, _worker(db, worker_id).id))
            if not draining:
                _clear(db, worker_id)

        await self._write(work)

    async def strike_worker(self, worker_id: str, now: datetime, *, limit: int, pause: timedelta) -> Worker | None:
        def work(db: sqlite3.Connection) -> Worker | None:
            try:
                worker = lifecycle.after_strike(_worker(db, worker_id), now, limit=limit, pause=pause)
            except UnknownWorker:
                return None
            db.execute(
                "UPDATE workers SET strikes = ?, quarantined_until = ? WHERE id = ?",
                (worker.strikes, optional_millis(worker.quarantined_until), worker_id),
            )
            return worker

        return await self._write(work)

    async def workers(self) -> list[tuple[Worker, list[str]]]:
        def work(db: sqlite3.Connection) -> list[tuple[Worker, list[str]]]:
            held: dict[str, list[str]] = {}
            for row in db.execute("SELECT worker_id, id FROM jobs WHERE state = 'running' ORDER BY id"):
                held.setdefault(row["worker_id"], []).append(row["id"])
            rows = db.execute("SELECT * FROM workers ORDER BY hostname, id")
            return [(worker_from_row(row), held.get(row["id"], [])) for row in rows]

        return await self._read(work)

    async def forget_workers(self, seen_before: datetime) -> int:
        return await self._write(
            lambda db: (
                db.execute(
                    "DELETE FROM workers WHERE last_seen < ? AND NOT EXISTS"
                    " (SELECT 1 FROM jobs WHERE worker_id = workers.id AND state = 'running')",
                    (to_millis(seen_before),),
                ).rowcount
            )
        )

    # --- jobs ---------------------------------------------------------------------------------------------------

    async def claim_jobs(
        self, worker_id: str, n: int, now: datetime, lease: timedelta, *, holding: Sequence[str] = ()
    ) -> list[Job]:
        def work(db: sqlite3.Connection) -> list[Job]:
            _see(db, worker_id, now)
            until = to_millis(now + lease)
            unanswered = db.execute(
                "SELECT id FROM jobs WHERE worker_id = ? AND state = 'running'"
                f" AND id NOT IN ({_marks(holding)}) ORDER BY rank, id LIMIT ?",
                (worker_id, *holding, n),
            ).fetchall()
            ids = [row["id"] for row in unanswered]
            db.executemany("UPDATE jobs SET lease_expires_at = ? WHERE id = ?", ((until, job_id) for job_id in ids))
            holds = len(ids) + len(holding)
            wanted = lifecycle.new_jobs_allowed(_worker(db, worker_id), n - len(ids), holds, now)
            queued = db.execute(
                "SELECT id FROM jobs WHERE state = 'queued'"
                " AND (avoid_worker_id IS NULL OR avoid_worker_id <> ?1 OR avoid_until <= ?2 OR NOT EXISTS"
                "  (SELECT 1 FROM workers WHERE id <> ?1 AND last_seen > ?3))"
                " ORDER BY rank, id LIMIT ?4",
                (worker_id, to_millis(now), to_millis(now - lease), wanted),
            ).fetchall()
            db.executemany(
                "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker_id = ?, lease_expires_at = ?,"
                " started_at = ? WHERE id = ?",
                ((worker_id, until, to_millis(now), row["id"]) for row in queued),
            )
            ids += [row["id"] for row in queued]
            return [_job(db, job_id) for job_id in ids]

        return await self._write(work)

    async def finish_job(self, claim: Claim, result: Result, now: datetime) -> FinishedJob:
        def work(db: sqlite3.Connection) -> FinishedJob:
            job = _job(db, claim.job_id)
            held = (
                job.state is JobState.RUNNING
                and job.worker_id == claim.worker_id
                and claim.attempt in (None, job.attempt)
            )
            if held:
                attempt, job = job.attempt, lifecycle.after_result(job, result, now)
                _update(db, job)
                db.executemany(
                    "INSERT OR REPLACE INTO logs (job_id, attempt, stage, stdout, stderr) VALUES (?, ?, ?, ?, ?)",
                    ((job.id, attempt, log.stage, log.stdout, log.stderr) for log in result.logs),
                )
                if job.state.ended:
                    db.execute(
                        "UPDATE workers SET jobs_processed = jobs_processed + 1 WHERE id = ?", (claim.worker_id,)
                    )
                if not (result.reason and result.reason.is_infrastructure):
                    _clear(db, claim.worker_id)
            elif not lifecycle.is_repeat(job, claim.worker_id, claim.attempt):
                raise ClaimLost(claim.job_id, claim.worker_id, claim.attempt)
            unfinished = _exists(db, f"run_id = ? AND type = ? AND {_UNFINISHED}", (job.run_id, job.type))
            return FinishedJob(job=job, phase_over=not unfinished, repeated=not held)

        return await self._write(work)

    async def expire_leases(self, now: datetime, lease: timedelta) -> list[LostJob]:
        def work(db: sqlite3.Connection) -> list[LostJob]:
            db.execute(
                "UPDATE jobs SET lease_expires_at = ?1 WHERE state = 'running' AND lease_expires_at > ?1",
                (to_millis(now + lease),),
            )
            expired = _jobs(db, "WHERE state = 'running' AND lease_expires_at <= ?", (to_millis(now),))
            return _take_back(db, [(job, lifecycle.after_lost_lease(job, now)) for job in expired])

        return await self._write(work)

    async def finished_elsewhere(self, run_id: str, worker_id: str) -> bool:
        blameless = "state IN ('succeeded', 'failed') AND worker_id <> ?"
        infrastructure = ", ".join(f"'{reason}'" for reason in Reason if reason.is_infrastructure)
        return await self._read(
            lambda db: _exists(
                db,
                f"run_id = ? AND {blameless} AND ifnull(reason, '') NOT IN ({infrastructure})",
                (run_id, worker_id),
            )
        )

    async def job(self, job_id: str) -> Job:
        return await self._read(lambda db: _job(db, job_id))

    async def job_log(self, job_id: str, stage: int | None = None) -> list[StageLog]:
        def work(db: sqlite3.Connection) -> list[StageLog]:
            reported = [attempt.number for attempt in _job(db, job_id).attempts if attempt.reported]
            rows = db.execute(
                "SELECT stage, stdout, stderr FROM logs WHERE job_id = ? AND attempt = ? AND stage = ifnull(?, stage)"
                " ORDER BY stage",
                (job_id, reported[-1] if reported else 0, stage),
            )
            return [StageLog(stage=row["stage"], stdout=row["stdout"], stderr=row["stderr"]) for row in rows]

        return await self._read(work)

    async def queue_depth(self) -> int:
        return await self._read(
            lambda db: int(db.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()[0])
        )

    # --- between processes --------------------------------------------------------------------------------------

    async def time(self) -> datetime:
        return datetime.now(UTC)

    async def jobs_queued_elsewhere(self) -> None:
        await asyncio.Event().wait()  # there is no elsewhere: the file is this process's alone


def _run(db: sqlite3.Connection, run_id: str) -> Run:
    row = db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise RunNotFound(run_id)
    return run_from_row(row)


def _worker(db: sqlite3.Connection, worker_id: str) -> Worker:
    row = db.execute("SELECT * FROM workers WHERE id = ?", (worker_id,)).fetchone()
    if row is None:
        raise UnknownWorker(worker_id)
    return worker_from_row(row)


def _clear(db: sqlite3.Connection, worker_id: str) -> None:
    """Nothing speaks against the worker any more."""
    db.execute("UPDATE workers SET strikes = 0, quarantined_until = NULL WHERE id = ? AND strikes <> 0", (worker_id,))


def _job(db: sqlite3.Connection, job_id: str) -> Job:
    jobs = _jobs(db, "WHERE id = ?", (job_id,))
    if not jobs:
        raise JobNotFound(job_id)
    return jobs[0]


def _jobs(db: sqlite3.Connection, rest: str, values: Sequence[object]) -> list[Job]:
    return [job_from_row(row) for row in db.execute(f"SELECT {JOB_COLUMNS} FROM jobs {rest}", values)]


def _exists(db: sqlite3.Connection, condition: str, values: Sequence[object]) -> bool:
    row = db.execute(f"SELECT EXISTS (SELECT 1 FROM jobs WHERE {condition})", values).fetchone()
    return bool(row[0])


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _see(db: sqlite3.Connection, worker_id: str, now: datetime) -> None:
    """Note that the worker was heard of; a clock that was set back does not make it look silent."""
    seen = "UPDATE workers SET last_seen = max(last_seen, ?) WHERE id = ?"
    if not db.execute(seen, (to_millis(now), worker_id)).rowcount:
        raise UnknownWorker(worker_id)


def _update(db: sqlite3.Connection, job: Job) -> None:
    """Write what the end of an attempt changes."""
    db.execute(
        "UPDATE jobs SET state = ?, reason = ?, attempt_limit = ?, worker_id = ?, lease_expires_at = NULL,"
        " started_at = ?, finished_at = ?, attempts = ?, info = ?, avoid_worker_id = ?, avoid_until = ? WHERE id = ?",
        (
            job.state,
            job.reason,
            job.attempt_limit,
            job.worker_id,
            optional_millis(job.started_at),
            optional_millis(job.finished_at),
            records.attempts_to_text(job.attempts),
            records.to_text(job.info),
            job.avoid_worker_id,
            optional_millis(job.avoid_until),
            job.id,
        ),
    )


def _take_back(db: sqlite3.Connection, changes: Iterable[tuple[Job, Job]]) -> list[LostJob]:
    """Write jobs as they are after their workers lost them."""
    lost = []
    for before, after in changes:
        _update(db, after)
        lost.append(LostJob(job_id=after.id, run_id=after.run_id, worker_id=before.worker_id or "", state=after.state))
    return lost


def _reserve_ranks(db: sqlite3.Connection, course: str, number: int) -> tuple[float, float]:
    """Take `number` ranks for a course; return what they start after, and the course's weight."""
    (virtual_time,) = db.execute(
        "UPDATE queue SET virtual_time = max(virtual_time, coalesce("
        "  (SELECT rank FROM jobs WHERE state = 'queued' ORDER BY rank LIMIT 1),"
        "  (SELECT max(last_rank) FROM courses),"
        "  0)) RETURNING virtual_time"
    ).fetchone()
    db.execute("INSERT OR IGNORE INTO courses (course, weight, last_rank) VALUES (?, 1, 0)", (course,))
    last_rank, weight = db.execute("SELECT last_rank, weight FROM courses WHERE course = ?", (course,)).fetchone()
    start = max(virtual_time, last_rank)
    db.execute("UPDATE courses SET last_rank = ? WHERE course = ?", (start + number / weight, course))
    return start, weight
