"""Whose turn it is: urgent jobs go first, in front goes before behind, and nobody starves of either."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broadway_api.domain import Job, JobType, Run, RunState
from broadway_api.store import open_store
from broadway_api.store.port import Store
from broadway_api.store.turns import FAIR_EVERY
from tests.contract.backends import Backend, MongoBackend, SqliteBackend
from tests.contract.scenarios import NOW, claimed, created, end_all, started, worker

# --- urgency --------------------------------------------------------------------------------------------------------


async def test_urgent_jobs_take_three_of_four_turns(store: Store) -> None:
    ordinary, urgent = await started(store, 20), await started(store, 20, priority=1)
    order = [job.run_id for job in await claimed(store, await worker(store), 24)]
    assert order.count(urgent.id) == 18
    assert order[:3] == [urgent.id] * 3  # and begin at once
    assert [order[n : n + FAIR_EVERY].count(ordinary.id) for n in range(0, 24, FAIR_EVERY)] == [1] * 6


async def test_the_higher_priority_goes_first(store: Store) -> None:
    runs = {priority: await started(store, 1, priority=priority) for priority in (0, 3, -2, 7)}
    order = [job.run_id for job in await claimed(store, await worker(store), 3)]
    assert order == [runs[priority].id for priority in (7, 3, 0)]


async def test_jobs_claimed_several_at_a_time_take_the_same_turns(store: Store) -> None:
    ordinary, urgent = await started(store, 20), await started(store, 20, priority=1)
    worker_id = await worker(store)
    order = [job.run_id for _ in range(4) for job in await claimed(store, worker_id, 5)]
    assert (order.count(ordinary.id), order.count(urgent.id)) == (5, 15)


async def test_courses_share_the_urgent_turns(store: Store) -> None:
    """Also one that comes later, and one that used them before."""
    await end_all(store, await started(store, 200, course="busy", priority=1))
    await started(store, 500, course="bulk")
    one = await started(store, 30, course="busy", priority=1)
    worker_id = await worker(store)
    await claimed(store, worker_id, 8)
    two = await started(store, 30, course="late", priority=1)

    order = [job.run_id for job in await claimed(store, worker_id, 40)]

    assert abs(order.count(one.id) - order.count(two.id)) <= 2
    assert order.count(one.id) + order.count(two.id) == 30


async def test_an_endless_stream_of_urgent_runs_starves_nobody(store: Store) -> None:
    waiting = await started(store, 10)
    worker_id = await worker(store)
    order = []
    for _ in range(FAIR_EVERY * 10):
        await started(store, 2, course="hasty", priority=1)
        order += await claimed(store, worker_id)
    assert [job.run_id for job in order].count(waiting.id) == 10


async def test_each_kind_of_worker_has_its_own_turns(store: Store) -> None:
    """Else the fair turns might fall, time and again, to workers that cannot run what waits for them."""
    await started(store, 100, priority=1)
    special = await started(store, 3, require="gpu")
    plain, gpu = await worker(store), await worker(store, gpu="")
    order = [(await claimed(store, one))[0].run_id for _ in range(12) for one in (gpu, plain, plain, plain)]
    assert order[::4].count(special.id) == 3


# --- in front ---------------------------------------------------------------------------------------------------------


async def opened(store: Store, run: Run, state: RunState, job_type: JobType) -> None:
    """A later phase of a run, open."""
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=state, now=NOW)
    await store.open_phase(run.id, job_type, NOW)


async def test_a_runs_last_job_does_not_wait_for_the_other_runs_of_its_course(store: Store) -> None:
    first = await started(store, 1, post=True)
    await end_all(store, first)
    await started(store, 500)
    await started(store, 500, course="other")
    worker_id = await worker(store)
    await claimed(store, worker_id, 50)

    await opened(store, first, RunState.POST_PROCESSING, JobType.POST_PROCESSING)

    order = [job.run_id for job in await claimed(store, worker_id, 3)]
    assert first.id in order


async def test_jobs_in_front_take_turns_with_other_courses(store: Store) -> None:
    for _ in range(30):
        await started(store, 1, course="many", pre=True)
    other = await started(store, 30, course="other")
    order = [job.run_id for job in await claimed(store, await worker(store), 40)]
    assert 18 <= order.count(other.id) <= 22


# --- nobody starves, whatever comes -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A run that is started after some more jobs were handed out."""

    course: str
    priority: int
    students: int
    after: int


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        course=st.sampled_from(["a", "b", "c"]),
        priority=st.sampled_from([-1, 0, 1, 5]),
        students=st.integers(1, 6),
        after=st.integers(0, 4),
    ),
    min_size=2,
    max_size=10,
)
EXAMPLES = {SqliteBackend: 40, MongoBackend: 5}


async def handed_out(store: Store, arrivals: Sequence[Arrival]) -> tuple[list[Job], dict[str, tuple[int, int]]]:
    """All jobs in the order of their handing out, and for each run how many were so before it came, and waited."""
    worker_id = await worker(store)
    order: list[Job] = []
    came: dict[str, tuple[int, int]] = {}
    queued = 0
    for arrival in arrivals:
        more = await store.claim_jobs(worker_id, arrival.after, NOW, NOW - NOW, holding=[job.id for job in order])
        order += more
        run = await created(store, arrival.students, course=arrival.course, priority=arrival.priority)
        came[run.id] = (len(order), queued - len(order))
        await store.start_run(run.id, RunState.STUDENTS, NOW)
        await store.open_phase(run.id, JobType.STUDENT, NOW)
        queued += arrival.students
    order += await store.claim_jobs(worker_id, 1_000, NOW, NOW - NOW, holding=[job.id for job in order])
    assert len(order) == queued
    return order, came


def test_no_job_waits_for_more_than_its_share_of_jobs_that_came_after_it(backend: Backend) -> None:
    """Before the k-th job of a run each other flow (a course's jobs of one priority) gets as many turns in the fair
    order as there were jobs in front of it, its own run's included, and one more; and of four turns one is fair."""

    async def check(arrivals: Sequence[Arrival]) -> None:
        backend.clear()
        async with open_store(backend.url) as store:
            order, came = await handed_out(store, arrivals)
        flows = len({(arrival.course, arrival.priority) for arrival in arrivals})
        numbers = {run_id: number for number, run_id in enumerate(came)}
        for at, job in enumerate(order):
            handed_out_before, in_front = came[job.run_id]
            overtaking = [one for one in order[handed_out_before:at] if numbers[one.run_id] > numbers[job.run_id]]
            bound = FAIR_EVERY * flows * (in_front + job.seq + 1)
            assert len(overtaking) <= bound, (job.seq, len(overtaking), bound)

    @settings(
        max_examples=EXAMPLES[type(backend)],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(ARRIVALS)
    def whatever_comes(arrivals: Sequence[Arrival]) -> None:
        asyncio.run(check(arrivals))

    whatever_comes()


async def test_a_lane_is_fair_however_far_it_is_ahead_of_the_others(store: Store) -> None:
    """Urgent jobs run ahead of the fair order; those who join them late begin where they are, and not behind."""
    await started(store, 300, course="bulk")
    early = await started(store, 100, course="early", priority=1)
    worker_id = await worker(store)
    await claimed(store, worker_id, 60)
    late = await started(store, 50, course="late", priority=1)
    order = [job.run_id for job in await claimed(store, worker_id, 40)]
    turns = [run_id for run_id in order if run_id in (early.id, late.id)]
    assert max(_streaks(turns)) <= 2


def _streaks(values: Sequence[Any]) -> list[int]:
    lengths = [1]
    for one, other in pairwise(values):
        if one == other:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return lengths
