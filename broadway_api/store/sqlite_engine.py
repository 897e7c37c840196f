"""One SQLite file, written through one connection in micro-batches and read through another.

Writes that are asked for in one turn of the event loop, or while a batch is being written, share the next one: one
transaction, one commit, one fsync, one hand-over to the thread and one back. One that fails takes nothing with it, and
each caller gets its own answer, after the commit.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from broadway_api.errors import SchemaTooNew, StoreInUse, StoreUnavailable
from broadway_api.store.sqlite_connection import BUSY_TIMEOUT, SqliteConnection
from broadway_api.store.sqlite_transaction import FileConnection

T = TypeVar("T")

#: Enough to share an fsync among many, few enough that the first caller does not wait long for the last.
MAX_BATCH = 64


class SqliteEngine:
    """Runs functions of a connection: `write` in order and durably, `read` beside them on a snapshot."""

    def __init__(self, path: Path, versions: Sequence[str]) -> None:
        """`versions`: the statements that make each version of the schema out of the one before."""
        self._path = path
        self._versions = versions
        self._writer = SqliteConnection("sqlite-writer", self._connect, begin="BEGIN IMMEDIATE", max_batch=MAX_BATCH)
        self._reader = SqliteConnection("sqlite-reader", self._connect, begin="BEGIN", max_batch=1)
        self._lock_fd: int | None = None

    async def open(self) -> None:
        """Lock the file, start the threads, make, check or upgrade the schema.

        Raises StoreInUse, SchemaTooNew, StoreUnavailable.
        """
        try:
            await asyncio.to_thread(self._lock)
            self._writer.start()
            await self.write(self._make_schema)
            self._reader.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what was asked for, close the connections, unlock. Safe to repeat, and before `open`."""
        await self._reader.stop()
        await self._writer.stop()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def write(self, work: Callable[[FileConnection], T], *, brief: bool = False) -> asyncio.Future[T]:
        """Run `work`, wholly or, if it raises, not at all; its result once it is on disk.

        A caller that is cancelled does not stop its write. Work that shares a batch with some that fails may be run
        again, the first time having been undone. `brief`: it takes no longer than reading a request, so the event loop
        may wait for it, though not for its commit.
        """
        return self._writer.submit(work, brief=brief)

    def read(self, work: Callable[[FileConnection], T]) -> asyncio.Future[T]:
        """Run `work` on a snapshot that has every write acknowledged before this call."""
        return self._reader.submit(work)

    def _lock(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StoreInUse(str(self._path)) from None
        self._lock_fd = fd

    def _connect(self) -> FileConnection:
        # Results and roster entries are students' data: nobody else on the machine reads them.
        previous = os.umask(0o077)
        try:
            connection = sqlite3.connect(
                self._path,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY_TIMEOUT / 1000,
                factory=FileConnection,
            )
        finally:
            os.umask(previous)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _make_schema(self, connection: sqlite3.Connection) -> None:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > len(self._versions):
            raise SchemaTooNew(found, len(self._versions))
        for statements in self._versions[found:]:
            for statement in statements.split(";\n"):
                if statement.strip():
                    connection.execute(statement)
        if found < len(self._versions):
            connection.execute(f"PRAGMA user_version = {len(self._versions):d}")
