"""Positions are told from few keys and some arithmetic; here they are held against the queue itself, read job by job,
after histories of every kind: courses of any weight, priorities, requirements, faults, lost workers, cancelled runs and
runs tried again, in part or as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broadway_api import lifecycle
from broadway_api.domain import Job, Reason, RunState
from broadway_api.events import WakeUps
from broadway_api.settling import Settler
from broadway_api.store import mongo_places, open_store, sqlite_places
from broadway_api.store.port import Store
from tests.contract.backends import Backend, MongoBackend, SqliteBackend
from tests.contract.scenarios import ATTEMPT_LIMIT, LEASE, NOW, claim_on, created, failure, success, worker

WEIGHTS = {"thirds": 3.0, "slow": 0.7, "plain": 1.0}
FLEET: tuple[dict[str, Any], ...] = ({}, {}, {"gpu": ""})
OUTCOMES = (success(), failure(), failure(Reason.RUNTIME_ERROR))


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A run comes."""

    course: str
    students: int
    priority: int
    require: str
    pre: bool
    post: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A worker takes some jobs, and what it does with them: an outcome each, or nothing."""

    worker: int
    outcomes: Sequence[int | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leave:
    """A worker is gone: it says so, or its leases run out."""

    worker: int
    politely: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    """A run is cancelled."""

    run: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """A run that has ended is tried again: those of its jobs that the bits of a number name."""

    run: int
    which: int


Step = Start | Work | Leave | Cancel | Retry
RUNS, WORKERS = st.integers(0, 9), st.integers(0, len(FLEET) - 1)
STARTS = st.builds(
    Start,
    course=st.sampled_from(sorted(WEIGHTS)),
    students=st.integers(1, 12),
    priority=st.sampled_from([0, 0, 0, 1, -1]),
    require=st.sampled_from(["", "", "gpu", "nobody has it"]),
    pre=st.booleans(),
    post=st.booleans(),
)
STEPS = st.lists(
    st.one_of(
        STARTS,
        st.builds(Work, worker=WORKERS, outcomes=st.lists(st.sampled_from([None, 0, 0, 1, 2]), min_size=1, max_size=9)),
        st.builds(Leave, worker=WORKERS, politely=st.booleans()),
        st.builds(Cancel, run=RUNS),
        st.builds(Retry, run=RUNS, which=st.integers(1, 2**14 - 1)),
    ),
    min_size=5,
    max_size=25,
)
EXAMPLES = {SqliteBackend: 25, MongoBackend: 5}


class History:
    """Does one step after another to a store, as the service would."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._settler = Settler(store, WakeUps(), self.clock)
        self._now = NOW
        self._runs: list[str] = []
        self._workers: list[str] = []

    def clock(self) -> datetime:
        return self._now

    async def begin(self) -> None:
        for course, weight in WEIGHTS.items():
            await self._store.change_directory(
                lambda directory, course=course, weight=weight: directory.with_course(course, weight=weight)  # type: ignore[misc]
            )
        self._workers = [await worker(self._store, **labels) for labels in FLEET]

    async def take(self, step: Step) -> None:
        self._now += timedelta(seconds=1)
        match step:
            case Start(course=course, students=students, priority=priority, require=require, pre=pre, post=post):
                shape: dict[str, Any] = {
                    "course": course,
                    "priority": priority,
                    "require": require,
                    "pre": pre,
                    "post": post,
                }
                run = await created(self._store, students, **shape)
                self._runs.append(run.id)
                await self._store.start_run(run.id, lifecycle.first_phase(run.config), self._now)
                await self._settler.settle(run.id)
            case Work(worker=number, outcomes=outcomes):
                await self._work(self._workers[number], outcomes)
            case Leave(worker=number, politely=politely):
                await self._leave(number, politely)
            case Cancel(run=number) if number < len(self._runs):
                await self._cancel(self._runs[number])
            case Retry(run=number, which=which) if number < len(self._runs):
                await self._retry(self._runs[number], which)

    async def _work(self, worker_id: str, outcomes: Sequence[int | None]) -> None:
        held = [job.id for job in await self._store.held_jobs(worker_id)]
        jobs = await self._store.claim_jobs(worker_id, len(outcomes), self._now, LEASE, holding=held)
        for job, outcome in zip(jobs, outcomes, strict=False):
            if outcome is not None:
                await self._store.finish_job(claim_on(job), OUTCOMES[outcome], self._now)
        for run_id in {job.run_id for job in jobs}:
            await self._settler.settle(run_id)

    async def _leave(self, number: int, politely: bool) -> None:
        if politely:
            lost = await self._store.deregister_worker(self._workers[number], self._now)
            self._workers[number] = await worker(self._store, seen=self._now, **FLEET[number])
        else:
            self._now += LEASE
            lost = await self._store.expire_leases(self._now, LEASE)
        for run_id in {job.run_id for job in lost}:
            await self._settler.settle(run_id)

    async def _cancel(self, run_id: str) -> None:
        run = await self._store.run(run_id)
        if not run.state.ended:
            await self._store.advance_run(run_id, leaving=run.state, to=RunState.CANCELLED, now=self._now)
            await self._settler.settle(run_id)

    async def _retry(self, run_id: str, which: int) -> None:
        run, jobs = await self._store.run(run_id), await self._store.run_jobs(run_id, limit=100)
        chosen: list[Job] = [job for job in jobs if which & 1 << job.seq]
        if run.state.ended and chosen:
            ids, to = [job.id for job in chosen], lifecycle.phase_of(chosen)
            assert await self._store.retry_jobs(run_id, ids, ATTEMPT_LIMIT, leaving=run.state, to=to)
            await self._settler.settle(run_id)


async def hold_against_the_queue(store: Store, backend: Backend) -> None:
    """The positions of all queued jobs, asked for one by one and together, are their places in the queue."""
    queue = backend.queue()
    for stranded in ((), ("nobody has it", "gpu")):
        expected, before = {}, 0
        for job_id, requirement in queue:
            expected[job_id] = before
            before += requirement not in stranded
        assert await store.queue_positions(list(expected), stranded=stranded) == expected
        for job_id in [*expected][:: 1 + len(expected) // 8]:
            assert await store.queue_positions([job_id], stranded=stranded) == {job_id: expected[job_id]}


def test_positions_are_exact_after_whatever_happened(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    for places in (mongo_places, sqlite_places):
        monkeypatch.setattr(places, "AHEAD", 2)  # or these small queues would be counted as a whole

    async def check(steps: Sequence[Step]) -> None:
        backend.clear()
        async with open_store(backend.url) as store:
            history = History(store)
            await history.begin()
            for step in steps:
                await history.take(step)
                await hold_against_the_queue(store, backend)

    @settings(
        max_examples=EXAMPLES[type(backend)],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(STARTS, STARTS, STEPS)
    def whatever_happens(first: Start, second: Start, steps: Sequence[Step]) -> None:
        asyncio.run(check([first, second, *steps]))

    whatever_happens()
