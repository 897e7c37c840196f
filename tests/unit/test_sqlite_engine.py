"""The threads of the embedded store outlive whatever the work that they are given does."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from broadway_api.errors import StoreUnavailable
from broadway_api.store.sqlite_connection import BUSY_TIMEOUT
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


def numbers(db: sqlite3.Connection) -> list[int]:
    return [n for (n,) in db.execute("SELECT n FROM numbers ORDER BY n")]


@pytest.mark.parametrize("fault", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ValueError("a bug")])
@pytest.mark.parametrize("brief", [False, True])
async def test_what_work_raises_comes_to_its_caller_and_the_thread_goes_on(
    engine: SqliteEngine, fault: BaseException, brief: bool
) -> None:
    def work(db: sqlite3.Connection) -> None:
        insert(db, 1)
        raise fault

    for run in (partial(engine.write, brief=brief), engine.read):
        caught: BaseException | None = None
        try:
            await run(work)
        except BaseException as error:  # that is the point
            caught = error
        assert caught is fault
    await engine.write(lambda db: insert(db, 2), brief=brief)
    assert await engine.read(numbers) == [2]


@pytest.mark.parametrize("brief", [False, True])
async def test_work_that_fails_half_way_takes_nothing_with_it(engine: SqliteEngine, brief: bool) -> None:
    def half(db: sqlite3.Connection) -> None:
        insert(db, 20, 21)
        raise ValueError("a bug")

    write = partial(engine.write, brief=brief)
    outcomes = await asyncio.gather(
        write(lambda db: insert(db, 1)),
        write(half),
        write(lambda db: insert(db, 1)),
        write(lambda db: insert(db, 3)),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, StoreUnavailable, type(None)]
    assert await engine.read(numbers) == [1, 3]


@pytest.mark.parametrize("brief", [False, True])
async def test_what_is_asked_for_in_one_turn_of_the_loop_is_one_commit(engine: SqliteEngine, brief: bool) -> None:
    done: list[str] = []
    await engine.write(lambda db: db.set_trace_callback(done.append))
    done.clear()

    async def dawdle() -> None:
        threading.Event().wait(0.05)  # blocks the loop, and leaves the writer's thread all the time that it needs

    first, second = (engine.write(lambda db, n=n: insert(db, n), brief=brief) for n in (1, 2))  # type: ignore[misc]
    await asyncio.gather(first, dawdle(), second)

    changes = [statement for statement in done if not statement.startswith(("INSERT", "PRAGMA"))]
    assert changes == ["BEGIN IMMEDIATE", "COMMIT"]


async def test_brief_work_is_done_on_the_event_loop_and_all_else_beside_it(engine: SqliteEngine) -> None:
    assert await engine.write(lambda _: threading.get_ident(), brief=True) == threading.get_ident()
    assert await engine.write(lambda _: threading.get_ident()) != threading.get_ident()
    assert await engine.read(lambda _: threading.get_ident()) != threading.get_ident()


async def test_writes_are_done_in_the_order_in_which_they_were_asked_for(engine: SqliteEngine) -> None:
    order: list[int] = []
    await asyncio.gather(*(engine.write(lambda _, n=n: order.append(n), brief=n % 3 > 0) for n in range(12)))  # type: ignore[misc]
    assert order == list(range(12))


async def test_a_file_that_another_program_writes_to_does_not_hold_up_the_event_loop(
    engine: SqliteEngine, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "numbers.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        writing = engine.write(lambda _: threading.get_ident(), brief=True)
        assert await engine.read(numbers) == []  # the event loop goes on, and what is written does not
        assert time.monotonic() - begun < BUSY_TIMEOUT / 2000
        assert not writing.done()
        other.execute("ROLLBACK")
    assert await writing != threading.get_ident()


async def test_what_was_asked_for_is_done_before_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "closing.db"
    engine = SqliteEngine(path, ["CREATE TABLE numbers (n INTEGER PRIMARY KEY);\n"])
    await engine.open()
    writes = [engine.write(lambda db, n=n: insert(db, n), brief=n % 2 > 0) for n in range(200)]  # type: ignore[misc]
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
    assert await engine.read(numbers) == [7]
