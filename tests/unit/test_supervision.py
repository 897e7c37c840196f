"""Background tasks outlive passing faults and nothing else."""

from __future__ import annotations

import asyncio
import logging

import pytest

from broadway_api.errors import SchemaTooNew, StoreUnavailable
from broadway_api.supervision import MAX_PAUSE, end_all, supervise


class Pauses:
    """Sleeps no time at all, and keeps how long it should have been; `then` is called before each."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


async def test_the_store_being_away_is_waited_out_with_growing_pauses(caplog: pytest.LogCaptureFixture) -> None:
    pauses, runs = Pauses(), 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs > 8:
            raise ZeroDivisionError
        raise StoreUnavailable("no route")

    with caplog.at_level(logging.WARNING), pytest.raises(ZeroDivisionError):
        await supervise("the task", run, sleep=pauses)
    assert pauses.seconds == [1, 2, 4, 8, 16, MAX_PAUSE, MAX_PAUSE, MAX_PAUSE]
    assert "the task: the store is unavailable: no route; again in 1 s" in caplog.messages


async def test_a_long_outage_never_overflows_the_pause() -> None:
    pauses, runs = Pauses(), 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs > 2_000:
            raise ZeroDivisionError
        raise StoreUnavailable("no route")

    with pytest.raises(ZeroDivisionError):
        await supervise("the task", run, sleep=pauses)
    assert max(pauses.seconds) == MAX_PAUSE


@pytest.mark.parametrize("fault", [ValueError("a bug"), SchemaTooNew(9, 1), KeyError("a bug")])
async def test_any_other_fault_is_let_out_at_once(fault: Exception) -> None:
    pauses = Pauses()

    async def run() -> None:
        raise fault

    with pytest.raises(type(fault)):
        await supervise("the task", run, sleep=pauses)
    assert pauses.seconds == []


async def test_a_task_that_ends_is_a_fault() -> None:
    async def run() -> None:
        return

    with pytest.raises(RuntimeError, match="the task the sweeper ended"):
        await supervise("the sweeper", run)


async def test_a_task_that_loses_a_cancellation_is_told_again() -> None:
    told = 0

    async def deaf() -> None:
        nonlocal told
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                told += 1
                if told == 3:
                    raise

    tasks = [asyncio.create_task(deaf()), asyncio.create_task(asyncio.sleep(3600))]
    await asyncio.sleep(0)  # let them begin
    async with asyncio.timeout(30):
        await end_all(tasks)
    assert told == 3
    assert all(task.cancelled() for task in tasks)


async def test_tasks_that_ended_before_or_in_a_fault_are_no_hindrance() -> None:
    async def faulty() -> None:
        raise ZeroDivisionError

    tasks = [asyncio.create_task(faulty()), asyncio.create_task(asyncio.sleep(0))]
    async with asyncio.timeout(30):
        await asyncio.wait(tasks)
        await end_all(tasks)
        await end_all([])
    assert isinstance(tasks[0].exception(), ZeroDivisionError)
