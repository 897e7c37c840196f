"""The outbox of webhooks in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from broadway_api.domain import Delivery
from broadway_api.store.records import to_millis
from broadway_api.store.sqlite_queries import SqlitePart
from broadway_api.store.sqlite_schema import delivery_from_row, optional_millis


class SqliteDeliveries(SqlitePart):
    """Deliveries; `due_at` is null once one is never due again."""

    async def put_delivery(self, delivery: Delivery) -> None:
        columns = "id, run_id, body, attempts, created_at, due_at"
        put = f"INSERT OR IGNORE INTO deliveries ({columns}) VALUES (?, ?, ?, ?, ?, ?)"
        made, due = to_millis(delivery.created_at), optional_millis(delivery.due_at)
        values = (delivery.id, delivery.run_id, delivery.body, delivery.attempts, made, due)
        await self._write(lambda db: db.execute(put, values).rowcount)

    async def take_delivery(self, now: datetime, pauses: Sequence[timedelta]) -> Delivery | None:
        def work(db: sqlite3.Connection) -> Delivery | None:
            due = "SELECT * FROM deliveries WHERE due_at <= ? ORDER BY due_at, id LIMIT 1"
            row = db.execute(due, (to_millis(now),)).fetchone()
            if row is None:
                return None
            again = now + pauses[row["attempts"]] if row["attempts"] < len(pauses) else None
            db.execute(
                "UPDATE deliveries SET attempts = attempts + 1, due_at = ? WHERE id = ?",
                (optional_millis(again), row["id"]),
            )
            return replace(delivery_from_row(row), attempts=row["attempts"] + 1, due_at=again)

        return await self._write(work)

    async def end_delivery(self, delivery_id: str, now: datetime) -> None:
        end = "UPDATE deliveries SET due_at = NULL, heard_at = ? WHERE id = ?"
        await self._write(lambda db: db.execute(end, (to_millis(now), delivery_id)).rowcount)

    async def note_delivery_fault(self, delivery_id: str, fault: str) -> None:
        note = "UPDATE deliveries SET fault = ? WHERE id = ?"
        await self._write(lambda db: db.execute(note, (fault, delivery_id)).rowcount)

    async def run_deliveries(self, run_id: str) -> list[Delivery]:
        of_run = "SELECT * FROM deliveries WHERE run_id = ? ORDER BY created_at, id"
        return await self._read(lambda db: [delivery_from_row(row) for row in db.execute(of_run, (run_id,))])

    async def forget_deliveries(self, created_before: datetime) -> int:
        old = "DELETE FROM deliveries WHERE created_at < ?"
        return await self._write(lambda db: db.execute(old, (to_millis(created_before),)).rowcount)
