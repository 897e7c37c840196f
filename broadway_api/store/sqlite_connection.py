"""A connection to a SQLite file, and the thread in which it does what may take long."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import TypeVar

from broadway_api.errors import StoreUnavailable
from broadway_api.store.sqlite_transaction import FileConnection, Outcome, Work, all_failed, attempt, commit, perform

T = TypeVar("T")

#: Milliseconds. A reader or checkpoint of another program (sqlite3, a backup) may hold the file for a moment.
BUSY_TIMEOUT = 10_000


class SqliteConnection:
    """Does one batch of work at a time, each as one transaction.

    What is asked for in one turn of the event loop, or while a batch is on its way, makes up the next one. *Brief* work
    is done on the event loop itself, and only its commit, the one step that waits for the disk, in the thread: handed
    to the thread as well, each of its statements would give the interpreter's lock away and ask for it again.
    """

    def __init__(self, name: str, connect: Callable[[], FileConnection], *, begin: str, max_batch: int) -> None:
        self._connect = connect
        self._begin = begin
        self._max_batch = max_batch
        self._connection: FileConnection | None = None
        self._waiting: deque[tuple[Work, bool]] = deque()  # the work, and whether it is brief
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handed_over: queue.SimpleQueue[Callable[[], list[Outcome]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was submitted, then end the thread. Safe to repeat, and before `start`."""
        was_stopped, self._is_stopped = self._is_stopped, True
        if self._loop is None:
            return
        while self._waiting or not self._idle.is_set():
            self._take_turn()
            await self._idle.wait()
        if not was_stopped:
            self._handed_over.put(None)
        await asyncio.to_thread(self._thread.join)

    def submit(self, work: Callable[[FileConnection], T], *, brief: bool = False) -> asyncio.Future[T]:
        """The result of `work`, once it is committed; see `attempt` for what becomes of faults."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._is_stopped:
            future.set_exception(StoreUnavailable("it was closed"))
            return future
        self._waiting.append(((work, future), brief))
        if len(self._waiting) == 1 and self._idle.is_set():
            loop.call_soon(self._take_turn)
        return future

    # --- on the event loop --------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """Begin the next batch, unless one is on its way."""
        if not self._waiting or not self._idle.is_set():
            return
        self._idle.clear()
        brief = self._waiting[0][1]
        alike = takewhile(lambda waiting: waiting[1] == brief, self._waiting)
        batch = [work for work, _ in islice(alike, self._max_batch)]
        for _ in batch:
            self._waiting.popleft()
        connection = self._connection
        outcomes = self._do_here(connection, batch) if brief and connection else None
        if connection is None or outcomes is None:
            self._handed_over.put(lambda: self._do_there(batch))
        else:
            self._handed_over.put(lambda: commit(connection, batch, outcomes))

    def _do_here(self, connection: FileConnection, batch: Sequence[Work]) -> list[Outcome] | None:
        """The outcomes of brief work; None if it is to be done in the thread, which has time."""
        try:
            connection.begin(self._begin)
        except sqlite3.Error:  # another program writes to the file, as a rule
            return None
        return attempt(connection, batch)

    def _settle(self, outcomes: list[Outcome]) -> None:
        for future, result, error in outcomes:
            if future.done():
                continue  # its caller has gone; the write stands, as it would had the answer been lost
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._idle.set()
        self._take_turn()

    # --- in the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (step := self._handed_over.get()) is not None:
            outcomes = step()
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._settle, outcomes)
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # everything acknowledged is in the WAL already
                self._connection.close()

    def _do_there(self, batch: Sequence[Work]) -> list[Outcome]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return self._do_patiently(self._connection, batch)
        except (sqlite3.Error, OSError) as error:
            return all_failed(batch, error)

    def _do_patiently(self, connection: FileConnection, batch: Sequence[Work]) -> list[Outcome]:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT:d}")
        try:
            return perform(connection, self._begin, batch)
        finally:
            connection.execute("PRAGMA busy_timeout = 0")  # on the event loop nothing waits
