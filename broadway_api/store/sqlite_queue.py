"""What waits in the queue of the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

from broadway_api.domain import CourseQueue
from broadway_api.store import records
from broadway_api.store.places import Place
from broadway_api.store.sqlite_places import jobs_before
from broadway_api.store.sqlite_queries import SqlitePart, marks
from broadway_api.store.sqlite_ranks import queued_requirements


class SqliteQueue(SqlitePart):
    """Jobs that wait for a worker, counted."""

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
