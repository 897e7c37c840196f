"""The threads of the embedded store outlive whatever the work that they are given does."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broadway_api.errors import StoreUnavailable
from broadway_api.store.sqlite_engine import SqliteEngine


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SqliteEngine]:
    """An engine with a table of numbers."""
    made = SqliteEngine(tmp_path / "numbers.db", ["CREATE TABLE numbers (n INTEGER PRIMARY KEY);\n"])
    await made.open()
    yield made
    await made.close()


def insert(db: sqlite3.Connection, *numbers: int) -> None:
    db.executemany("INSERT INTO numbers VALUES (?)", ((n,) for n in numbers))


@pytest.mark.parametrize("fault", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ValueError("a bug")])
async def test_what_work_raises_comes_to_its_caller_and_the_thread_goes_on(
    engine: SqliteEngine, fault: BaseException
) -> None:
    def work(db: sqlite3.Connection) -> None:
        insert(db, 1)
        raise fault

    for run in (engine.write, engine.read):
        caught: BaseException | None = None
        try:
            await run(work)
        except BaseException as error:  # that is the point
            caught = error
        assert caught is fault
    await engine.write(lambda db: insert(db, 2))
    assert await engine.read(lambda db: [n for (n,) in db.execute("SELECT n FROM numbers")]) == [2]


async def test_a_full_disk_is_told_as_such_and_passes(engine: SqliteEngine) -> None:
    """SQLite itself holds the file to a size, as a full disk would: it then rolls the whole transaction back."""

    def fill(db: sqlite3.Connection) -> None:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages:d}")
        insert(db, *range(100_000))

    with pytest.raises(StoreUnavailable, match="full"):
        await engine.write(fill)

    def make_room(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA max_page_count = 1000000")

    await engine.write(make_room)
    await engine.write(lambda db: insert(db, 7))
    assert await engine.read(lambda db: [n for (n,) in db.execute("SELECT n FROM numbers")]) == [7]
