"""The threads of the embedded store outlive whatever the work that they are given does."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
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


async def test_work_that_fails_half_way_takes_nothing_with_it(engine: SqliteEngine) -> None:
    def half(db: sqlite3.Connection) -> None:
        insert(db, 20, 21)
        raise ValueError("a bug")

    outcomes = await asyncio.gather(
        engine.write(lambda db: insert(db, 1)),
        engine.write(half),
        engine.write(lambda db: insert(db, 1)),
        engine.write(lambda db: insert(db, 3)),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, StoreUnavailable, type(None)]
    assert await engine.read(lambda db: [n for (n,) in db.execute("SELECT n FROM numbers")]) == [1, 3]


async def test_what_is_asked_for_in_one_turn_of_the_loop_is_one_commit(engine: SqliteEngine) -> None:
    done: list[str] = []
    await engine.write(lambda db: db.set_trace_callback(done.append))
    done.clear()

    async def dawdle() -> None:
        threading.Event().wait(0.05)  # blocks the loop, and leaves the writer's thread all the time that it needs

    first, second = (engine.write(lambda db, n=n: insert(db, n)) for n in (1, 2))  # type: ignore[misc]
    await asyncio.gather(first, dawdle(), second)

    assert [statement for statement in done if not statement.startswith("INSERT")] == ["BEGIN IMMEDIATE", "COMMIT"]


async def test_what_was_asked_for_is_done_before_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "closing.db"
    engine = SqliteEngine(path, ["CREATE TABLE numbers (n INTEGER PRIMARY KEY);\n"])
    await engine.open()
    writes = [asyncio.ensure_future(engine.write(lambda db, n=n: insert(db, n))) for n in range(200)]  # type: ignore[misc]
    await asyncio.sleep(0)
    await engine.close()
    await asyncio.gather(*writes)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM numbers").fetchone() == (200,)
    with pytest.raises(StoreUnavailable, match="closed"):
        await engine.write(lambda db: insert(db, 1000))


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
