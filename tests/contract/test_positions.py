"""Where a job stands in the queue: exactly, whatever its priority and whoever can run it."""

from __future__ import annotations

import pytest

from broadway_api.domain import RunState
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import LEASE, NOW, claimed, created, end_all, jobs_of, later, started, worker


async def test_a_position_is_the_number_of_jobs_that_come_before(store: Store, peer: Store) -> None:
    """Of courses that take turns, so with many ranks that are alike."""
    runs = [await started(store, 40, course=course) for course in ("a", "b", "c")]
    worker_id = await worker(store)
    await claimed(store, worker_id, 17)
    ids = [job.id for run in runs for job in await jobs_of(store, run)]

    positions = await peer.queue_positions(ids)

    order = [job.id for job in await claimed(store, worker_id, 103)]
    assert positions == {job_id: place for place, job_id in enumerate(order)}
    assert await store.queue_positions(ids) == {}


async def test_positions_asked_for_one_by_one_are_the_same(store: Store) -> None:
    runs = [
        await started(store, 5, course=course, priority=priority, require=require)
        for course, priority, require in (("a", 0, ""), ("b", 2, ""), ("a", 2, "gpu"), ("c", -1, ""), ("b", 0, "gpu"))
    ]
    ids = [job.id for run in runs for job in await jobs_of(store, run)]
    together = await store.queue_positions(ids)
    assert sorted(together.values()) == list(range(25))
    assert together == {job_id: (await store.queue_positions([job_id]))[job_id] for job_id in ids}
    by_run = [[together[job.id] for job in await jobs_of(store, run)] for run in runs]
    assert [sorted(places) == places for places in by_run] == [True] * 5
    assert max(by_run[1] + by_run[2]) == 9  # priority 2
    assert min(by_run[3]) == 20  # priority -1


async def test_jobs_that_wait_in_vain_are_in_nobodys_way(store: Store) -> None:
    await started(store, 9, require="gpu", priority=1)
    (job,) = await jobs_of(store, await started(store))
    assert await store.queue_positions([job.id]) == {job.id: 9}
    assert await store.queue_positions([job.id], stranded={"gpu"}) == {job.id: 0}


async def test_many_that_wait_in_vain_know_what_stands_before_them(store: Store) -> None:
    possible, vain = await started(store, 30), await started(store, 30, require="gpu")
    ids = [job.id for run in (possible, vain) for job in await jobs_of(store, run)]
    positions = await store.queue_positions(ids, stranded={"gpu"})
    assert [positions[job_id] for job_id in ids[:30]] == list(range(30))
    assert positions == {job_id: (await store.queue_positions([job_id], stranded={"gpu"}))[job_id] for job_id in ids}


async def test_what_is_not_queued_has_no_position(store: Store) -> None:
    (waiting,) = await jobs_of(store, await created(store))
    await started(store)
    (running,) = await claimed(store, await worker(store))
    assert await store.queue_positions([waiting.id, running.id, new_id()]) == {}
    assert await store.queue_positions([]) == {}


async def test_each_course_knows_what_it_has_in_the_queue(store: Store, peer: Store) -> None:
    assert await store.queue_by_course() == {}
    await created(store, 3, course="ready")
    await end_all(store, await started(store, 2, course="done"))
    await started(store, 4, course="a", at=later(10))
    await started(store, 3, course="a", at=later(5))
    await started(store, 2, course="b", at=later(20), require="gpu")
    await store.claim_jobs(await worker(store), 1, later(30), LEASE)

    queues = await peer.queue_by_course()

    assert {course: queue.depth for course, queue in queues.items()} == {"a": 6, "b": 2}
    assert {course: queue.oldest for course, queue in queues.items()} == {"a": later(5), "b": later(20)}
    assert {course: queue.requirements for course, queue in queues.items()} == {"a": {"": 6}, "b": {"gpu": 2}}


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_run_that_is_being_cancelled_counts_as_long_as_it_is_queued(store: Store, cancelled: bool) -> None:
    """In the moments before anybody notes that nothing is left of it."""
    urgent, ordinary = await started(store, 9, priority=1), await started(store, 3)
    await store.advance_run(urgent.id, leaving=RunState.STUDENTS, to=RunState.CANCELLED, now=NOW)
    if cancelled:
        await store.cancel_jobs(urgent.id, NOW)
    *_, last = await jobs_of(store, ordinary)
    assert await store.queue_positions([last.id]) == {last.id: 2 if cancelled else 11}


@pytest.mark.parametrize("jobs", [1, 3])
async def test_the_first_of_the_queue_has_none_before_it(store: Store, jobs: int) -> None:
    first, *_ = await jobs_of(store, await started(store, jobs))
    assert await store.queue_positions([first.id]) == {first.id: 0}
    assert [job.id for job in await store.claim_jobs(await worker(store), 1, NOW, LEASE)] == [first.id]
