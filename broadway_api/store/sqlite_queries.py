"""Statements that several parts of the SQLite store need, each within its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence

from broadway_api.domain import Job, JobState, LostJob, Run, Worker
from broadway_api.errors import JobNotFound, RunNotFound, UnknownWorker
from broadway_api.store import records
from broadway_api.store.sqlite_engine import SqliteEngine
from broadway_api.store.sqlite_schema import JOB_COLUMNS, job_from_row, optional_millis, run_from_row, worker_from_row

#: Jobs that a brief write is about at most. Each takes a few statements, of some ten microseconds each.
BRIEFLY = 32

UNFINISHED = "state IN ('waiting', 'queued', 'running')"


class SqlitePart:
    """What the parts of the store share: the engine that runs their work."""

    def __init__(self, engine: SqliteEngine) -> None:
        self._engine = engine
        self._write = engine.write
        self._read = engine.read


def read_run(db: sqlite3.Connection, run_id: str) -> Run:
    row = db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise RunNotFound(run_id)
    return run_from_row(row)


def read_worker(db: sqlite3.Connection, worker_id: str) -> Worker:
    row = db.execute("SELECT * FROM workers WHERE id = ?", (worker_id,)).fetchone()
    if row is None:
        raise UnknownWorker(worker_id)
    return worker_from_row(row)


def clear_worker(db: sqlite3.Connection, worker_id: str) -> None:
    """Nothing speaks against the worker any more."""
    db.execute("UPDATE workers SET strikes = 0, quarantined_until = NULL WHERE id = ? AND strikes <> 0", (worker_id,))


def read_job(db: sqlite3.Connection, job_id: str) -> Job:
    jobs = read_jobs(db, "WHERE id = ?", (job_id,))
    if not jobs:
        raise JobNotFound(job_id)
    return jobs[0]


def read_jobs(db: sqlite3.Connection, rest: str, values: Sequence[object], *, columns: str = JOB_COLUMNS) -> list[Job]:
    return [job_from_row(row) for row in db.execute(f"SELECT {columns} FROM jobs {rest}", values)]


def any_job(db: sqlite3.Connection, condition: str, values: Sequence[object]) -> bool:
    row = db.execute(f"SELECT EXISTS (SELECT 1 FROM jobs WHERE {condition})", values).fetchone()
    return bool(row[0])


def marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


#: What nearly all ends come to. To bind what is neither a number nor a plain text, an enum or None, costs as much as to
#: run a statement.
_SUCCEED = (
    "UPDATE jobs SET state = 'succeeded', lease_expires_at = NULL, finished_at = ?, attempts = ?, info = ? WHERE id = ?"
)

_END = (
    "UPDATE jobs SET state = ?, reason = ?, attempt_limit = ?, worker_id = ?, lease_expires_at = NULL,"
    " started_at = ?, finished_at = ?, attempts = ?, info = ?, avoid_worker_id = ?, avoid_until = ?,"
    " score = ?, max_score = ?, results = ?, cause = ?, said = ? WHERE id = ?"
)


def write_outcomes(db: sqlite3.Connection, jobs: Iterable[Job]) -> None:
    """Write what the end of an attempt changes of running jobs."""
    successes: list[tuple[object, ...]] = []
    ends: list[tuple[object, ...]] = []
    for job in jobs:
        finished_at = optional_millis(job.finished_at)
        attempts, info = records.attempts_to_text(job.attempts), records.to_text(job.info)
        if job.state is JobState.SUCCEEDED and job.results is None:
            successes.append((finished_at, attempts, info, job.id))
            continue
        ends.append(
            (
                job.state,
                job.reason,
                job.attempt_limit,
                job.worker_id,
                optional_millis(job.started_at),
                finished_at,
                attempts,
                info,
                job.avoid_worker_id,
                optional_millis(job.avoid_until),
                job.score,
                job.max_score,
                None if job.results is None else records.to_text(job.results),
                job.cause,
                job.said,
                job.id,
            )
        )
    for statement, values in ((_SUCCEED, successes), (_END, ends)):
        if values:
            db.executemany(statement, values)


def take_back(db: sqlite3.Connection, changes: Sequence[tuple[Job, Job]]) -> list[LostJob]:
    """Write jobs as they are after their workers lost them."""
    write_outcomes(db, (after for _, after in changes))
    return [
        LostJob(
            job_id=after.id,
            run_id=after.run_id,
            worker_id=before.worker_id or "",
            state=after.state,
            requirement=after.requirement,
        )
        for before, after in changes
    ]
