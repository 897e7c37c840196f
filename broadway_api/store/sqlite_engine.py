"""One SQLite file, written by one thread in micro-batches and read by another.

Writes that are asked for in one turn of the event loop, or while a batch is being written, share the next one: one
transaction, one commit, one fsync, one hand-over to the thread and one back. One that fails takes nothing with it, and
each caller gets its own answer, after the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
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
        await self._reader.stop()
        await self._writer.stop()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, wholly or, if it raises, not at all; return its result once it is on disk.

        A caller that is cancelled does not stop its write. Work that shares a batch with some that fails may be run
        again, the first time having been undone.
        """
        return await self._writer.submit(work)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on a snapshot that has every write acknowledged before this call."""
        return await self._reader.submit(work)

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


_Work = tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]
_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


class _ConnectionThread:
    """A thread with a connection of its own and a queue of work for it."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection], *, begin: str, max_batch: int) -> None:
        self._connect = connect
        self._begin = begin
        self._max_batch = max_batch
        self._gathered: list[_Work] = []  # in this turn of the event loop
        self._queue: queue.SimpleQueue[list[_Work]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was submitted, then end the thread. Safe to repeat, and before `start`."""
        self._hand_over()
        if not self._stopped:
            self._stopped = True
            self._queue.put([])
        if self._loop is not None:
            await asyncio.to_thread(self._thread.join)

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._stopped:
            future.set_exception(StoreUnavailable("it was closed"))
            return future
        self._gathered.append((work, future))
        if len(self._gathered) == 1:
            loop.call_soon(self._hand_over)
        return future

    def _hand_over(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        waiting: deque[_Work] = deque()
        ending = False
        while waiting or not ending:
            while not ending and (not waiting or not self._queue.empty()):
                gathered = self._queue.get()
                waiting.extend(gathered)
                ending = not gathered
            batch = [waiting.popleft() for _ in range(min(len(waiting), self._max_batch))]
            if batch:
                try:
                    connection = connection or self._connect()
                except (sqlite3.Error, OSError) as error:
                    outcomes = _all_failed(batch, error)
                else:
                    outcomes = _run_batch(connection, self._begin, batch)
                self._tell(outcomes)
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # everything acknowledged is in the WAL already
                connection.close()

    def _tell(self, outcomes: list[_Outcome]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(_settle, outcomes)


class _GivenUp(Exception):
    """SQLite rolled the whole transaction back by itself, as it does when the disk is full."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(str(error))


class _HalfDone(Exception):
    """Work failed that may have changed something, which only a rollback of the whole batch undoes."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(str(error))


def _run_batch(
    connection: sqlite3.Connection, begin: str, batch: Sequence[_Work], *, savepoints: bool = False
) -> list[_Outcome]:
    """One transaction for all; the outcome of each, to be told only after the commit.

    Work that fails has hardly ever changed anything before, so savepoints, which cost as much as short work itself, are
    only made when a batch is run again since one did.
    """
    outcomes: list[_Outcome] = []
    try:
        connection.execute(begin)
        for work, future in batch:
            outcomes.append((future, *_run_one(connection, work, savepoint=savepoints, alone=len(batch) == 1)))
        connection.execute("COMMIT")
    except _HalfDone as half_done:
        connection.execute("ROLLBACK")
        if len(batch) == 1:
            return _all_failed(batch, half_done.error)
        return _run_batch(connection, begin, batch, savepoints=True)
    except _GivenUp as given_up:
        return _all_failed(batch, given_up.error)
    except sqlite3.Error as error:
        # The commit failed (a full disk, say): nothing of the batch was kept, so nobody is told that it was.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        return _all_failed(batch, error)
    return outcomes


def _run_one(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any], *, savepoint: bool, alone: bool
) -> tuple[Any, BaseException | None]:
    """The result of one piece of work, or what it raised, and then nothing is left of it."""
    if savepoint:
        connection.execute("SAVEPOINT work")
    before = connection.total_changes
    try:
        result, fault = work(connection), None
    except BaseException as error:  # whatever it is belongs to this caller alone, and never ends the thread
        if not connection.in_transaction:
            raise _GivenUp(error) from error
        if savepoint:
            connection.execute("ROLLBACK TO work")
        elif alone or connection.total_changes != before:  # the count knows nothing of changes to the schema
            raise _HalfDone(error) from error
        result, fault = None, _translated(error)
    if savepoint:
        connection.execute("RELEASE work")
    return result, fault


def _all_failed(batch: Sequence[_Work], error: BaseException) -> list[_Outcome]:
    return [(future, None, _translated(error)) for _, future in batch]


def _settle(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():
            continue  # its caller has gone; the write stands, as it would had the answer been lost
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, BroadwayError) or not isinstance(error, sqlite3.Error | OSError):
        return error
    return StoreUnavailable(str(error))
