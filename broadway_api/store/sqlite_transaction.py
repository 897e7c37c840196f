"""Work of several callers as one transaction: one that fails takes nothing with it, each gets an answer of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from broadway_api.errors import BroadwayError, StoreUnavailable


class FileConnection(sqlite3.Connection):
    """A connection that tells whoever remembers what he wrote or read whether that may still be so."""

    undone = 0  # how often work was
    version = 0  # of the file when the last transaction began: another number once another program has written to it

    def begin(self, statement: str) -> None:
        """Begin a transaction by this statement."""
        self.execute(statement)
        (self.version,) = self.execute("PRAGMA data_version").fetchone()

    def undo(self, statement: str = "ROLLBACK") -> None:
        """Undo by this statement, unless SQLite has done so itself."""
        self.undone += 1
        if self.in_transaction:
            self.execute(statement)


#: What somebody waits for.
Work = tuple[Callable[[FileConnection], Any], asyncio.Future[Any]]

#: Who waits, and for which result or fault.
Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


def perform(connection: FileConnection, begin: str, batch: Sequence[Work]) -> list[Outcome]:
    """Begin a transaction, do all work, commit. Raises sqlite3.Error if it cannot even begin."""
    connection.begin(begin)
    outcomes = attempt(connection, batch)
    if outcomes is None:
        connection.begin(begin)
        outcomes = _attempt(connection, batch, savepoints=True)
    return commit(connection, batch, outcomes)


def attempt(connection: FileConnection, batch: Sequence[Work]) -> list[Outcome] | None:
    """Do all work within the transaction that is open; the outcome of each, to be told after `commit`.

    None if one failed that may have changed something: then nothing is left of the batch, nor of the transaction, and
    it is for `perform`.
    """
    try:
        return _attempt(connection, batch, savepoints=False)
    except _HalfDone as half_done:
        connection.undo()
        return all_failed(batch, half_done.error) if len(batch) == 1 else None


def commit(connection: FileConnection, batch: Sequence[Work], outcomes: list[Outcome]) -> list[Outcome]:
    """Write it to disk, if there is something to write; the outcomes as they can be told."""
    try:
        if connection.in_transaction:
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        # A full disk, say: nothing of the batch was kept, so nobody is told that it was.
        _roll_back(connection)
        return all_failed(batch, error)
    return outcomes


def all_failed(batch: Sequence[Work], error: BaseException) -> list[Outcome]:
    """The same fault for all."""
    return [(future, None, _translated(error)) for _, future in batch]


def _attempt(connection: FileConnection, batch: Sequence[Work], *, savepoints: bool) -> list[Outcome]:
    """Work that fails has hardly ever changed anything before, so savepoints, which cost as much as short work itself,
    are only made when a batch is done again since one did.
    """
    try:
        return [(future, *_do(connection, work, savepoint=savepoints, alone=len(batch) == 1)) for work, future in batch]
    except _GivenUp as given_up:
        return all_failed(batch, given_up.error)
    except sqlite3.Error as error:
        _roll_back(connection)
        return all_failed(batch, error)


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


def _do(
    connection: FileConnection, work: Callable[[FileConnection], Any], *, savepoint: bool, alone: bool
) -> tuple[Any, BaseException | None]:
    """The result of one piece of work, or what it raised, and then nothing is left of it."""
    if savepoint:
        connection.execute("SAVEPOINT work")
    before = connection.total_changes
    try:
        result, fault = work(connection), None
    except BaseException as error:  # whatever it is belongs to this caller alone, and never ends the thread
        if not connection.in_transaction:
            connection.undo()
            raise _GivenUp(error) from error
        if savepoint:
            connection.undo("ROLLBACK TO work")
        elif alone or connection.total_changes != before:  # the count knows nothing of changes to the schema
            raise _HalfDone(error) from error
        result, fault = None, _translated(error)
    if savepoint:
        connection.execute("RELEASE work")
    return result, fault


def _roll_back(connection: FileConnection) -> None:
    with contextlib.suppress(sqlite3.Error):
        connection.undo()


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, BroadwayError) or not isinstance(error, sqlite3.Error | OSError):
        return error
    return StoreUnavailable(str(error))
