"""Workers in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from broadway_api import lifecycle
from broadway_api.domain import Job, LostJob, Worker
from broadway_api.errors import UnknownWorker, WorkerNameTaken
from broadway_api.store import records
from broadway_api.store.records import to_millis
from broadway_api.store.sqlite_queries import (
    SqlitePart,
    clear_worker,
    marks,
    read_jobs,
    read_worker,
    take_back,
)
from broadway_api.store.sqlite_schema import optional_millis, worker_from_row


class SqliteWorkers(SqlitePart):
    """Workers: admitted, heard of, kept from work, forgotten."""

    async def register_worker(self, worker: Worker) -> None:
        columns = {
            "id": worker.id,
            "hostname": worker.hostname,
            "slots": worker.slots,
            "runtime": worker.runtime,
            "version": worker.version,
            "labels": records.to_text(dict(worker.labels)),
            "registered_at": to_millis(worker.registered_at),
            "last_seen": to_millis(worker.last_seen),
            "jobs_processed": worker.jobs_processed,
            "draining": worker.draining,
            "strikes": worker.strikes,
            "quarantined_until": optional_millis(worker.quarantined_until),
            "name": worker.name,
            "asked_at": optional_millis(worker.asked_at),
            "owner": worker.owner,
        }

        def work(db: sqlite3.Connection) -> None:
            if (
                worker.name is not None
                and db.execute("SELECT 1 FROM workers WHERE name = ?", (worker.name,)).fetchone()
            ):
                raise WorkerNameTaken(worker.name)
            db.execute(f"INSERT INTO workers ({', '.join(columns)}) VALUES ({marks(columns)})", tuple(columns.values()))

        await self._write(work)

    async def deregister_worker(self, worker_id: str, now: datetime, *, crashed: bool = False) -> list[LostJob]:
        def work(db: sqlite3.Connection) -> list[LostJob]:
            if not db.execute("DELETE FROM workers WHERE id = ?", (worker_id,)).rowcount:
                raise UnknownWorker(worker_id)
            held = read_jobs(db, "WHERE worker_id = ? AND state = 'running'", (worker_id,))
            end = lifecycle.after_lost_lease if crashed else lifecycle.after_hand_back
            return take_back(db, [(job, end(job, now)) for job in held])

        return await self._write(work)

    async def worker(self, worker_id: str) -> Worker:
        return await self._read(lambda db: read_worker(db, worker_id))

    async def worker_named(self, name: str) -> Worker:
        def work(db: sqlite3.Connection) -> Worker:
            row = db.execute("SELECT * FROM workers WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise UnknownWorker(name)
            return worker_from_row(row)

        return await self._read(work)

    async def held_jobs(self, worker_id: str) -> list[Job]:
        which = "WHERE worker_id = ? AND state = 'running' ORDER BY started_at, id"
        return await self._read(lambda db: read_jobs(db, which, (worker_id,)))

    async def set_draining(self, worker_id: str, draining: bool) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE workers SET draining = ? WHERE id = ?", (draining, read_worker(db, worker_id).id))
            if not draining:
                clear_worker(db, worker_id)

        await self._write(work)

    async def strike_worker(self, worker_id: str, now: datetime, *, limit: int, pause: timedelta) -> Worker | None:
        def work(db: sqlite3.Connection) -> Worker | None:
            try:
                worker = lifecycle.after_strike(read_worker(db, worker_id), now, limit=limit, pause=pause)
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
            # Left to itself SQLite reads all jobs in the order of their ids, not to have to sort these.
            running = "SELECT worker_id, id FROM jobs INDEXED BY jobs_held WHERE state = 'running' ORDER BY id"
            for row in db.execute(running):
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
