"""The sweeper takes a job from nobody whom it has not watched, without a break, for as long as a lease lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broadway_api.clock import StoreClock
from broadway_api.domain import Job, JobState, JobType, Run, RunConfig, RunState, Stage, Worker
from broadway_api.errors import RunNotFound, StoreUnavailable
from broadway_api.events import WakeUps
from broadway_api.ids import new_id
from broadway_api.policy import Policy
from broadway_api.settling import Settler
from broadway_api.store.sqlite import SqliteStore
from broadway_api.sweeper import TIDY_EVERY, Sweeper

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
LEASE = 30.0
POLICY = Policy(
    heartbeat_interval=10,
    lease=timedelta(seconds=LEASE),
    quarantine_after=1,
    run_retention=timedelta(days=1),
    worker_retention=timedelta(days=2),
)


class TimedStore(SqliteStore):
    """A real store whose clock is the test's, and which can be away."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.clock = NOON
        self.away = False
        self.calls: list[str] = []
        self.swept = asyncio.Condition()

    async def time(self) -> datetime:
        if self.away:
            raise StoreUnavailable("away")
        return self.clock

    async def unsettled_runs(self) -> list[str]:
        async with self.swept:
            self.calls.append("unsettled_runs")
            self.swept.notify_all()
        return await super().unsettled_runs()

    async def forget_half_created(self, created_before: datetime) -> int:
        self.calls.append("forget_half_created")
        assert created_before == self.clock - timedelta(hours=1)
        return await super().forget_half_created(created_before)


class World:
    """A sweeper, its store, and the only clock there is."""

    def __init__(self, store: TimedStore) -> None:
        self.store = store
        self.monotonic = 5_000.0
        self.wake_ups = WakeUps()
        self.clock = StoreClock(store.time, monotonic=lambda: self.monotonic)
        self.sweeper = self.another()

    def another(self) -> Sweeper:
        """A sweeper that has just been started."""
        settler = Settler(self.store, self.wake_ups, self.clock.now)
        return Sweeper(self.store, settler, self.wake_ups, POLICY, self.clock, monotonic=lambda: self.monotonic)

    def pass_time(self, seconds: float) -> None:
        self.monotonic += seconds
        self.store.clock += timedelta(seconds=seconds)

    async def watch(self, seconds: float, *, every: float = 5.0) -> None:
        """Sweep regularly for so long, beginning now."""
        await self.sweeper.sweep()
        for _ in range(round(seconds / every)):
            self.pass_time(every)
            await self.sweeper.sweep()

    async def held(self) -> Job:
        """A job that a worker took just now, and of which nothing will be heard any more."""
        run, job = a_run(self.store.clock)
        await self.store.create_run(run, [job])
        await self.store.start_run(run.id, RunState.STUDENTS, self.store.clock)
        await self.store.open_phase(run.id, JobType.STUDENT, self.store.clock)
        worker = Worker(id=new_id(), hostname="grader", registered_at=self.store.clock, last_seen=self.store.clock)
        await self.store.register_worker(worker)
        (held,) = await self.store.claim_jobs(worker.id, 1, self.store.clock, POLICY.lease)
        return held

    async def is_held(self, job: Job) -> bool:
        return (await self.store.job(job.id)).state is JobState.RUNNING


def a_run(now: datetime) -> tuple[Run, Job]:
    """A run of one student."""
    run = Run(id=new_id(), config=RunConfig(student_pipeline=(Stage(image="i"),)), created_at=now)
    return run, Job(id=new_id(), run_id=run.id, type=JobType.STUDENT, seq=1, student={"N": "s"}, attempt_limit=3)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An empty store and a sweeper that has not begun."""
    async with TimedStore(tmp_path / "broadway.db") as store:
        made = World(store)
        await made.clock.synchronize()
        yield made


# --- the watch ------------------------------------------------------------------------------------------------------


async def test_a_lease_that_is_over_is_taken_back_after_a_whole_lease_of_watching(world: World) -> None:
    job = await world.held()
    await world.watch(25)
    assert await world.is_held(job)
    with world.wake_ups.place({}) as waiting:
        await world.watch(5)
        assert waiting.is_set()
    assert not await world.is_held(job)
    assert job.worker_id is not None
    assert (await world.store.worker(job.worker_id)).quarantined_until is not None  # it counts as a fault


async def test_a_sweeper_that_was_just_started_has_seen_nobody_be_silent(world: World) -> None:
    job = await world.held()
    world.pass_time(600)  # while no API ran: heartbeats had nowhere to go

    await world.watch(25)
    assert await world.is_held(job)
    await world.watch(5)
    assert not await world.is_held(job)


async def frozen(world: World) -> None:
    """This process was stopped for a while, with what came in waiting at its door."""
    world.pass_time(60)


async def store_away(world: World) -> None:
    """The supervisor begins anew after that."""
    world.store.away = True
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(world.sweeper.run(), 30)
    world.store.away = False


async def clock_set(world: World) -> None:
    world.store.clock += timedelta(hours=1)


@pytest.mark.parametrize("broken_by", [frozen, store_away, clock_set])
async def test_what_breaks_the_watch_gives_everybody_another_lease(
    world: World, broken_by: Callable[[World], Awaitable[None]]
) -> None:
    await world.watch(60)
    job = await world.held()
    await world.watch(25)

    await broken_by(world)

    await world.watch(25)
    assert await world.is_held(job)
    await world.watch(5)
    assert not await world.is_held(job)


async def test_a_clock_that_was_set_back_takes_no_job_and_keeps_none(world: World) -> None:
    await world.watch(60)
    job = await world.held()

    world.store.clock -= timedelta(hours=1)

    await world.watch(30)
    assert await world.is_held(job)
    await world.watch(30)
    assert not await world.is_held(job)


async def test_a_worker_that_is_heard_of_keeps_its_job(world: World) -> None:
    job = await world.held()
    assert job.worker_id is not None
    for _ in range(20):
        await world.watch(10)
        await world.store.heartbeat(job.worker_id, None, world.clock.now(), POLICY.lease)
    assert await world.is_held(job)


@pytest.mark.parametrize(
    ("heartbeat", "lease", "interval"), [(10, 30, 5), (10, 11, 11 / 6), (1, 3, 0.5), (1, 2, 1 / 3), (600, 1_800, 300)]
)
def test_sweeps_are_close_enough_together_not_to_break_the_watch(heartbeat: int, lease: int, interval: float) -> None:
    policy = Policy(heartbeat_interval=heartbeat, lease=timedelta(seconds=lease))
    unused: Any = None
    assert Sweeper(unused, unused, unused, policy, unused).interval == pytest.approx(interval)
    assert interval * 2 < lease / 2 or interval * 3 <= lease / 2  # one may come late


# --- the rest of a sweep --------------------------------------------------------------------------------------------


async def test_a_step_that_a_crash_left_undone_is_taken(world: World) -> None:
    run, job = a_run(NOON)
    await world.store.create_run(run, [job])
    await world.store.start_run(run.id, RunState.STUDENTS, NOON)

    await world.sweeper.sweep()

    assert (await world.store.job(job.id)).state is JobState.QUEUED


async def test_runs_that_ended_long_ago_are_deleted(world: World) -> None:
    run, job = a_run(NOON)
    await world.store.create_run(run, [job])
    await world.store.advance_run(run.id, leaving=RunState.READY, to=RunState.CANCELLED, now=NOON)
    await world.watch(30)
    assert (await world.store.run(run.id)).state is RunState.CANCELLED
    world.pass_time(24 * 3_600)
    await world.sweeper.sweep()
    with pytest.raises(RunNotFound):
        await world.store.run(run.id)


async def test_workers_that_were_silent_for_long_are_forgotten(world: World) -> None:
    job = await world.held()
    await world.watch(60)
    assert len(await world.store.workers()) == 1
    world.pass_time(2 * 24 * 3_600)
    await world.sweeper.sweep()
    assert await world.store.workers() == []
    assert not await world.is_held(job)


async def test_half_created_runs_are_looked_for_once_an_hour(world: World) -> None:
    looked: Sequence[str] = world.store.calls
    await world.watch(60)
    assert looked.count("forget_half_created") == 1
    world.pass_time(TIDY_EVERY)
    await world.watch(60)
    assert looked.count("forget_half_created") == 2


async def test_sweeping_begins_at_once_and_goes_on(world: World) -> None:
    quick = Policy(heartbeat_interval=1, lease=timedelta(milliseconds=60))
    settler = Settler(world.store, world.wake_ups, world.clock.now)
    task = asyncio.create_task(Sweeper(world.store, settler, world.wake_ups, quick, world.clock).run())
    async with asyncio.timeout(30), world.store.swept:
        await world.store.swept.wait_for(lambda: world.store.calls.count("unsettled_runs") >= 3)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
