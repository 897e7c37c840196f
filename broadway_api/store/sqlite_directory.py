"""Courses and tokens in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace

from broadway_api.store import records
from broadway_api.store.sqlite_queries import SqlitePart
from broadway_api.tenants import Directory


class SqliteDirectory(SqlitePart):
    """One row, replaced as a whole."""

    async def directory(self) -> Directory:
        return await self._read(_read_directory)

    async def directory_since(self, version: int) -> Directory | None:
        def work(db: sqlite3.Connection) -> Directory | None:
            (found,) = db.execute("SELECT version FROM directory").fetchone()
            return None if found == version else _read_directory(db)

        return await self._read(work)

    async def change_directory(self, change: Callable[[Directory], Directory]) -> Directory:
        def work(db: sqlite3.Connection) -> Directory:
            before = _read_directory(db)
            after = change(before)
            if after == before:
                return before
            after = replace(after, version=before.version + 1)
            db.execute(
                "UPDATE directory SET version = ?, content = ?",
                (after.version, records.to_text(records.directory_to_json(after))),
            )
            return after

        return await self._write(work)


def _read_directory(db: sqlite3.Connection) -> Directory:
    row = db.execute("SELECT version, content FROM directory").fetchone()
    return records.directory_from_json(records.from_text(row["content"]), row["version"])
