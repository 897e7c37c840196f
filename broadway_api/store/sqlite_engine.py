"""One SQLite file, written by one thread in micro-batches and read by another.

Writes that arrive while a batch is being written share the next one: one transaction, one commit, one fsync. Each is
a savepoint of its own, so one that fails takes nothing with it, and each caller gets its own answer, after the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from broadway_api.errors import BroadwayError, SchemaTooNew, StoreInUse, StoreUnavailable

T = TypeVar("T")

#: Enough to share an fsync among many, few enough that the first caller does not wait long for the last.
MAX_BATCH = 64

#: A reader or checkpoint of another tool (sqlite3, a backup) may hold the file for a moment.
BUSY_TIMEOUT_SECONDS = 10


class SqliteEngine:
    """Runs functions of a connection: `write` in order and durably, `read` beside them on a snapshot."""

    def __init__(self, path: Path, versions: Sequence[str]) -> None:
        """`versions`: the statements that make each version of the schema out of the one before."""
        self._path = path
        self._versions = versions
        self._writer = _ConnectionThread("sqlite-writer", self._connect, begin="BEGIN IMMEDIATE", max_batch=MAX_BATCH)
        self._reader = _ConnectionThread("sqlite-reader", self._connect, begin="BEGIN", max_batch=1)
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
        await asyncio.to_thread(self._reader.stop)
        await asyncio.to_thread(self._writer.stop)
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a savepoint; return its result once it is on disk.

        A caller that is cancelled does not stop its write.
        """
        return await asyncio.wrap_future(self._writer.submit(work))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on a snapshot that has every write acknowledged before this call."""
        return await asyncio.wrap_future(self._reader.submit(work))

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

    def _connect(self) -> sqlite3.Connection:
        # Results and roster entries are students' data: nobody else on the machine reads them.
        previous = os.umask(0o077)
        try:
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_SECONDS
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


class _ConnectionThread:
    """A thread with a connection of its own and a queue of work for it."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection], *, begin: str, max_batch: int) -> None:
        self._connect = connect
        self._begin = begin
        self._max_batch = max_batch
        self._queue: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._stopped = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if not self._stopped.is_set():
            self._stopped.set()
            self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        future: Future[T] = Future()
        if self._stopped.is_set():
            future.set_exception(StoreUnavailable("it was closed"))
        else:
            self._queue.put((work, future))
        return future

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        ending = False
        while not ending:
            batch = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) == self._max_batch or self._queue.empty():
                    break
                item = self._queue.get()
            ending = item is None
            if batch:
                try:
                    connection = connection or self._connect()
                except (sqlite3.Error, OSError) as error:
                    _settle([(future, None, _translated(error)) for _, future in batch])
                else:
                    _settle(_run_batch(connection, self._begin, batch))
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # everything acknowledged is in the WAL already
                connection.close()


class _GivenUp(Exception):
    """SQLite rolled the whole transaction back by itself, as it does when the disk is full."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(str(error))


_Outcome = tuple[Future[Any], Any, BaseException | None]


def _run_batch(
    connection: sqlite3.Connection, begin: str, batch: list[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]]
) -> list[_Outcome]:
    """One transaction for all; the outcome of each, to be told only after the commit."""
    outcomes: list[_Outcome] = []
    try:
        connection.execute(begin)
        for work, future in batch:
            connection.execute("SAVEPOINT work")
            try:
                result = work(connection)
            except BaseException as error:  # whatever it is belongs to this caller alone, and never ends the thread
                if not connection.in_transaction:
                    raise _GivenUp(error) from error
                connection.execute("ROLLBACK TO work")
                outcomes.append((future, None, _translated(error)))
            else:
                outcomes.append((future, result, None))
            connection.execute("RELEASE work")
        connection.execute("COMMIT")
    except _GivenUp as given_up:
        return [(future, None, _translated(given_up.error)) for _, future in batch]
    except sqlite3.Error as error:
        # The commit failed (a full disk, say): nothing of the batch was kept, so nobody is told that it was.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        return [(future, None, _translated(error)) for _, future in batch]
    return outcomes


def _settle(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if not future.set_running_or_notify_cancel():
            continue  # its caller has gone; the write stands, as it would had the answer been lost
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, BroadwayError) or not isinstance(error, sqlite3.Error | OSError):
        return error
    return StoreUnavailable(str(error))
