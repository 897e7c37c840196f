"""The queue of the SQLite store: what is handed out, and what waits. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache

from broadway_api import capabilities, lifecycle
from broadway_api.domain import CourseQueue, Job, Worker
from broadway_api.store import records
from broadway_api.store.places import Place
from broadway_api.store.records import to_millis
from broadway_api.store.sqlite_engine import SqliteEngine
from broadway_api.store.sqlite_places import handed_out, jobs_before
from broadway_api.store.sqlite_queries import BRIEFLY, SqlitePart, marks, read_ranked_job, see_worker
from broadway_api.store.sqlite_ranks import queued_requirements
from broadway_api.store.turns import Turns

_URGENT = ("jobs_by_urgency", "priority DESC, rank, id")
_FAIR = ("jobs_by_fairness", "rank, id")

_HELD = "SELECT id FROM jobs INDEXED BY jobs_held WHERE worker_id = ? AND state = 'running'"

_AGAIN = "SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY rank, id LIMIT ?"

_TAKE = (
    "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker_id = ?, lease_expires_at = ?, started_at = ?"
    " WHERE id = ?"
)

_FOR_OTHERS = "ifnull(avoid_worker_id = ?1 AND avoid_until > ?2, false)"


class SqliteQueue(SqlitePart):
    """Jobs that wait for a worker: handed out, counted."""

    def __init__(self, engine: SqliteEngine) -> None:
        super().__init__(engine)
        self._turns = Turns()

    async def claim_jobs(
        self, worker_id: str, n: int, now: datetime, lease: timedelta, *, holding: Sequence[str] = ()
    ) -> list[Job]:
        def work(db: sqlite3.Connection) -> list[Job]:
            worker = see_worker(db, worker_id, now, asked=True)
            again = _hold_longer(db, worker_id, n, now + lease, known=holding)
            wanted = lifecycle.new_jobs_allowed(worker, n - len(again), len(again) + len(holding), now)
            new = self._take(db, worker, wanted, now, lease) if wanted else []
            jobs = [read_ranked_job(db, job_id) for job_id in (*again, *new)]
            handed_out(db, jobs[len(again) :])
            return [job for job, _ in jobs]

        return await self._write(work, brief=n <= BRIEFLY)

    def _take(self, db: sqlite3.Connection, worker: Worker, wanted: int, now: datetime, lease: timedelta) -> list[str]:
        """The ids of so many queued jobs, or as many as there are, now the worker's."""
        served = [text for text in queued_requirements(db) if capabilities.fits(worker.labels, text)]
        values = (worker.id, to_millis(now), records.to_text(served))
        given = (worker.id, to_millis(now + lease), to_millis(now))
        taken: list[str] = []
        alone = False
        while served and len(taken) < wanted:
            order = _FAIR if self._turns.is_fair(worker.labels) else _URGENT
            first = db.execute(first_in(order, for_others=alone), values).fetchone()
            if first is not None:
                db.execute(_TAKE, (*given, first[0]))
                self._turns.took(worker.labels)
                taken.append(first[0])
            elif alone or _has_peers(db, worker.id, now - lease):
                break
            else:
                alone = True
        return taken

    async def queue_depth(self, limit: int | None = None) -> int:
        queued = "SELECT 1 FROM jobs WHERE state = 'queued' LIMIT ?"  # a negative limit is none
        counted = f"SELECT count(*) FROM ({queued})"
        return await self._read(lambda db: int(db.execute(counted, (limit or -1,)).fetchone()[0]))

    async def queued_requirements(self, limit: int) -> Mapping[str, int]:
        counted = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'queued' AND requirement = ? LIMIT ?)"
        return await self._read(
            lambda db: {
                required: int(db.execute(counted, (required, limit)).fetchone()[0])
                for required in queued_requirements(db)
            }
        )

    async def queue_positions(self, job_ids: Sequence[str], *, stranded: Collection[str] = ()) -> Mapping[str, int]:
        def work(db: sqlite3.Connection) -> Mapping[str, int]:
            counted = [required for required in queued_requirements(db) if required not in stranded]
            rows = db.execute(
                f"SELECT priority, rank, id FROM jobs WHERE state = 'queued' AND id IN ({marks(job_ids)})",
                tuple(job_ids),
            )
            places = [Place(priority=row["priority"], rank=row["rank"], id=row["id"]) for row in rows]
            return dict(zip((place.id for place in places), jobs_before(db, places, counted), strict=True))

        return await self._read(work)

    async def queue_by_course(self) -> Mapping[str, CourseQueue]:
        def work(db: sqlite3.Connection) -> Mapping[str, CourseQueue]:
            # All queued jobs of a run are of one phase, which was queued at one time and requires one thing.
            rows = db.execute(
                "SELECT course, requirement, sum(depth) AS depth, min(oldest) AS oldest FROM (SELECT course,"
                " (SELECT count(*) FROM jobs WHERE run_id = runs.id AND state = 'queued') AS depth,"
                " (SELECT requirement FROM jobs WHERE run_id = runs.id AND state = 'queued' LIMIT 1) AS requirement,"
                " (SELECT queued_at FROM jobs WHERE run_id = runs.id AND state = 'queued' LIMIT 1) AS oldest"
                " FROM runs INDEXED BY runs_unsettled WHERE settled = 0 AND state <> 'ready')"
                " GROUP BY course, requirement HAVING sum(depth) > 0"
            )
            queues: dict[str, CourseQueue] = {}
            for row in rows:
                some = CourseQueue.of(row["requirement"], row["depth"], records.from_millis(row["oldest"]))
                queues[row["course"]] = some.beside(queues.get(row["course"]))
            return queues

        return await self._read(work)


@cache
def first_in(order: tuple[str, str], *, for_others: bool) -> str:
    """The statement that finds the first job of the queue in an order.

    Of each requirement that the worker meets (parameter 3, a JSON list) it reads the first entry of an index. 1 is the
    worker, 2 the time.
    """
    index, by = order
    which = "" if for_others else f"AND NOT {_FOR_OTHERS}"
    return (
        "SELECT id FROM jobs WHERE id IN ("
        f"SELECT (SELECT id FROM jobs INDEXED BY {index} WHERE state = 'queued' AND requirement = served.value {which}"
        f" ORDER BY {by} LIMIT 1) FROM json_each(?3) AS served"
        f") ORDER BY {by} LIMIT 1"
    )


def _hold_longer(
    db: sqlite3.Connection, worker_id: str, n: int, until: datetime, *, known: Collection[str]
) -> list[str]:
    """The ids of up to `n` jobs that the worker was given and does not know that it holds: the answer got lost."""
    unknown = {row[0] for row in db.execute(_HELD, (worker_id,))}.difference(known)
    if not unknown:
        return []
    again = [row[0] for row in db.execute(_AGAIN, (records.to_text(sorted(unknown)), n))]
    db.executemany(
        "UPDATE jobs SET lease_expires_at = ? WHERE id = ?", ((to_millis(until), job_id) for job_id in again)
    )
    return again


def _has_peers(db: sqlite3.Connection, worker_id: str, since: datetime) -> bool:
    found = db.execute("SELECT 1 FROM workers WHERE id <> ? AND last_seen > ? LIMIT 1", (worker_id, to_millis(since)))
    return found.fetchone() is not None
