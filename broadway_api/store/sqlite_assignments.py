"""Courses' assignments in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from broadway_api.errors import AssignmentNotFound
from broadway_api.store import records
from broadway_api.store.sqlite_queries import SqlitePart


class SqliteAssignments(SqlitePart):
    """Configurations, kept as they came."""

    async def put_assignment(self, course: str, name: str, config: Mapping[str, Any]) -> None:
        put = "INSERT OR REPLACE INTO assignments (course, name, config) VALUES (?, ?, ?)"
        await self._write(lambda db: db.execute(put, (course, name, records.to_text(config))).rowcount)

    async def assignment(self, course: str, name: str) -> dict[str, Any]:
        def work(db: sqlite3.Connection) -> dict[str, Any]:
            get = "SELECT config FROM assignments WHERE course = ? AND name = ?"
            row = db.execute(get, (course, name)).fetchone()
            if row is None:
                raise AssignmentNotFound(course, name)
            return dict(records.from_text(row["config"]))

        return await self._read(work)
