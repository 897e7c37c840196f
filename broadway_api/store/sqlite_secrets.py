"""Secrets in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from datetime import datetime

from broadway_api.domain import SealedSecret
from broadway_api.errors import SecretNotFound
from broadway_api.store.records import from_millis, to_millis
from broadway_api.store.sqlite_queries import SqlitePart, marks


class SqliteSecrets(SqlitePart):
    """Secrets, of which only sealed values are here."""

    async def put_secret(self, secret: SealedSecret) -> None:
        await self._write(
            lambda db: (
                db.execute(
                    "INSERT OR REPLACE INTO secrets (course, name, sealed, changed_at) VALUES (?, ?, ?, ?)",
                    (secret.course, secret.name, secret.sealed, to_millis(secret.changed_at)),
                ).rowcount
            )
        )

    async def secret_names(self, course: str) -> Mapping[str, datetime]:
        def work(db: sqlite3.Connection) -> Mapping[str, datetime]:
            rows = db.execute("SELECT name, changed_at FROM secrets WHERE course = ? ORDER BY name", (course,))
            return {row["name"]: from_millis(row["changed_at"]) for row in rows}

        return await self._read(work)

    async def secrets(self, course: str, names: Collection[str]) -> list[SealedSecret]:
        wanted = tuple(names)
        return await self._read(
            lambda db: _read_secrets(
                db, f"WHERE course = ? AND name IN ({marks(wanted)}) ORDER BY name", course, *wanted
            )
        )

    async def any_secret(self) -> SealedSecret | None:
        found = await self._read(lambda db: _read_secrets(db, "ORDER BY course, name LIMIT 1"))
        return found[0] if found else None

    async def all_secrets(self) -> list[SealedSecret]:
        return await self._read(lambda db: _read_secrets(db, "ORDER BY course, name"))

    async def reseal_secret(self, secret: SealedSecret, sealed: str) -> bool:
        return bool(
            await self._write(
                lambda db: (
                    db.execute(
                        "UPDATE secrets SET sealed = ? WHERE course = ? AND name = ? AND sealed = ?",
                        (sealed, secret.course, secret.name, secret.sealed),
                    ).rowcount
                )
            )
        )

    async def delete_secret(self, course: str, name: str) -> None:
        def work(db: sqlite3.Connection) -> None:
            if not db.execute("DELETE FROM secrets WHERE course = ? AND name = ?", (course, name)).rowcount:
                raise SecretNotFound(name)

        await self._write(work)


def _read_secrets(db: sqlite3.Connection, rest: str, *values: str) -> list[SealedSecret]:
    return [
        SealedSecret(
            course=row["course"], name=row["name"], sealed=row["sealed"], changed_at=from_millis(row["changed_at"])
        )
        for row in db.execute(f"SELECT course, name, sealed, changed_at FROM secrets {rest}", values)
    ]
