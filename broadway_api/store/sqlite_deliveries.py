"""The outbox of webhooks in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

from broadway_api.domain import Delivery
from broadway_api.store.records import from_millis, to_millis
from broadway_api.store.sqlite_queries import SqlitePart
from broadway_api.store.sqlite_schema import optional_millis


class SqliteDeliveries(SqlitePart):
    """Deliveries; `due_at` is null once one is never due again."""

    async def put_delivery(self, delivery: Delivery) -> None:
        put = "INSERT OR IGNORE INTO deliveries (id, body, attempts, created_at, due_at) VALUES (?, ?, ?, ?, ?)"
        made = to_millis(delivery.created_at)
        values = (delivery.id, delivery.body, delivery.attempts, made, made)
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
            return Delivery(
                id=row["id"],
                body=row["body"],
                attempts=row["attempts"] + 1,
                created_at=from_millis(row["created_at"]),
            )

        return await self._write(work)

    async def end_delivery(self, delivery_id: str) -> None:
        end = "UPDATE deliveries SET due_at = NULL WHERE id = ?"
        await self._write(lambda db: db.execute(end, (delivery_id,)).rowcount)

    async def forget_deliveries(self, created_before: datetime) -> int:
        old = "DELETE FROM deliveries WHERE created_at < ?"
        return await self._write(lambda db: db.execute(old, (to_millis(created_before),)).rowcount)
