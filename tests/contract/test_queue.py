"""Phases and the queue: what opening a phase queues, in which order it is handed out, and what repairs a crash."""

from __future__ import annotations

import asyncio

import pytest

from broadway_api.domain import JobState, JobType, Reason, RunState
from broadway_api.errors import RunNotFound
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    LEASE,
    LEASE_OVER,
    NOW,
    cancelled,
    claim_on,
    claimed,
    created,
    end_all,
    failure,
    jobs_of,
    later,
    started,
    states,
    success,
    worker,
)

# --- opening a phase ------------------------------------------------------------------------------------------------


async def test_opening_a_phase_queues_its_jobs_alone(store: Store, peer: Store) -> None:
    run = await created(store, 2, pre=True, post=True)
    await store.start_run(run.id, RunState.PRE_PROCESSING, NOW)

    assert await store.open_phase(run.id, JobType.PRE_PROCESSING, later(1)) == 1
    assert await states(peer, run) == [JobState.QUEUED, JobState.WAITING, JobState.WAITING, JobState.WAITING]
    assert await store.open_phase(run.id, JobType.STUDENT, later(2)) == 2
    assert await states(peer, run) == [JobState.QUEUED, JobState.QUEUED, JobState.QUEUED, JobState.WAITING]
    assert await store.open_phase(run.id, JobType.POST_PROCESSING, later(3)) == 1

    assert await states(peer, run) == [JobState.QUEUED] * 4
    assert [job.queued_at for job in await jobs_of(peer, run)] == [later(1), later(2), later(2), later(3)]
    assert await store.queue_depth() == 4


async def test_opening_a_phase_again_changes_nothing(store: Store, peer: Store) -> None:
    run = await started(store, 3)
    (taken,) = await claimed(store, await worker(store))
    before = await jobs_of(store, run)

    assert await peer.open_phase(run.id, JobType.STUDENT, later(9)) == 0

    assert await jobs_of(store, run) == before
    assert await store.job(taken.id) == taken


async def test_a_phase_without_jobs_opens(store: Store) -> None:
    run = await created(store)
    assert await store.open_phase(run.id, JobType.POST_PROCESSING, NOW) == 0


async def test_a_phase_that_two_open_at_once_opens_once(store: Store, peer: Store) -> None:
    for _ in range(5):
        run = await created(store, 30)
        await store.start_run(run.id, RunState.STUDENTS, NOW)

        opened = await asyncio.gather(*(one.open_phase(run.id, JobType.STUDENT, NOW) for one in (store, peer) * 2))

        assert sum(opened) == 30
        assert await states(store, run) == [JobState.QUEUED] * 30


# --- what decides the next step -------------------------------------------------------------------------------------


async def test_an_unknown_run_makes_no_progress(store: Store) -> None:
    with pytest.raises(RunNotFound):
        await store.run_progress(new_id())


async def test_a_run_that_is_ready_has_only_jobs_that_wait(store: Store) -> None:
    run = await created(store)
    progress = await store.run_progress(run.id)
    assert progress.run == run
    assert (progress.unopened, progress.unfinished, progress.failed, progress.leftover) == (False, False, False, True)


async def test_a_phase_goes_from_unopened_to_over(store: Store, peer: Store) -> None:
    run = await created(store)
    worker_id = await worker(store)
    seen = []

    async def look() -> None:
        progress = await peer.run_progress(run.id)
        seen.append((progress.unopened, progress.unfinished, progress.failed, progress.leftover))

    await store.start_run(run.id, RunState.STUDENTS, NOW)
    await look()
    await store.open_phase(run.id, JobType.STUDENT, NOW)
    await look()
    (job,) = await claimed(store, worker_id)
    await look()
    await store.finish_job(claim_on(job), success(), NOW)
    await look()

    assert seen == [
        (True, True, False, True),
        (False, True, False, True),
        (False, True, False, True),
        (False, False, False, False),
    ]


async def test_a_job_that_waits_to_be_tried_again_keeps_its_phase_open(store: Store) -> None:
    run = await started(store)
    (job,) = await claimed(store, await worker(store))

    finished = await store.finish_job(claim_on(job), failure(Reason.RUNTIME_ERROR), NOW)

    assert not finished.phase_over
    progress = await store.run_progress(run.id)
    assert (progress.unopened, progress.unfinished, progress.failed) == (False, True, False)


@pytest.mark.parametrize("pre", [True, False])
async def test_a_failure_counts_in_its_own_phase_alone(store: Store, pre: bool) -> None:
    run = await started(store, pre=pre, post=True)
    await end_all(store, run, failure())

    failed = await store.run_progress(run.id)
    assert (failed.unfinished, failed.failed) == (False, True)
    leaving, to = (RunState.PRE_PROCESSING, RunState.STUDENTS) if pre else (RunState.STUDENTS, RunState.POST_PROCESSING)
    await store.advance_run(run.id, leaving=leaving, to=to, now=NOW)

    moved = await store.run_progress(run.id)
    assert (moved.unopened, moved.unfinished, moved.failed) == (True, True, False)


async def test_a_cancelled_job_counts_as_failed(store: Store) -> None:
    run = await started(store, 2)
    await cancelled(store, run.id)
    await store.settle_run(run.id)
    again, _ = await jobs_of(store, run)
    await store.retry_jobs(run.id, [again.id], 3, leaving=RunState.CANCELLED, to=RunState.STUDENTS)
    progress = await store.run_progress(run.id)
    assert (progress.unopened, progress.unfinished, progress.failed) == (True, True, True)


async def test_an_ended_run_shows_what_it_left(store: Store) -> None:
    run = await started(store, 2, post=True)
    await claimed(store, await worker(store))
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.CANCELLED, now=NOW)

    progress = await store.run_progress(run.id)
    assert (progress.unopened, progress.unfinished, progress.failed, progress.leftover) == (False, False, False, True)
    await store.cancel_jobs(run.id, NOW)

    assert not (await store.run_progress(run.id)).leftover


# --- crashes between two steps --------------------------------------------------------------------------------------


async def test_a_run_that_started_without_opening_its_phase_is_found_and_opened(store: Store, peer: Store) -> None:
    run = await created(store, 2)
    await store.start_run(run.id, RunState.STUDENTS, NOW)

    assert await peer.unsettled_runs() == [run.id]
    assert (await peer.run_progress(run.id)).unopened
    assert await peer.open_phase(run.id, JobType.STUDENT, NOW) == 2

    assert len(await claimed(peer, await worker(peer), 2)) == 2


async def test_a_run_that_moved_on_without_opening_its_phase_is_found_and_opened(store: Store, peer: Store) -> None:
    run = await started(store, post=True)
    await end_all(store, run)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.POST_PROCESSING, now=NOW)

    assert await peer.unsettled_runs() == [run.id]
    assert (await peer.run_progress(run.id)).unopened
    assert await peer.open_phase(run.id, JobType.POST_PROCESSING, NOW) == 1

    (job,) = await claimed(peer, await worker(peer))
    assert job.type is JobType.POST_PROCESSING


async def test_a_phase_that_ended_without_moving_the_run_is_found(store: Store, peer: Store) -> None:
    run = await started(store)
    await end_all(store, run)

    assert await peer.unsettled_runs() == [run.id]
    progress = await peer.run_progress(run.id)
    assert (progress.unopened, progress.unfinished) == (False, False)


# --- the order of the queue -----------------------------------------------------------------------------------------


async def test_jobs_are_handed_out_in_the_order_of_the_roster(store: Store) -> None:
    run = await started(store, 20)
    jobs = await claimed(store, await worker(store), 20)
    assert [job.seq for job in jobs] == list(range(1, 21))
    assert {job.run_id for job in jobs} == {run.id}


async def test_runs_of_one_course_are_handed_out_in_the_order_of_their_start(store: Store) -> None:
    first, second = await started(store, 3), await started(store, 3)
    jobs = await claimed(store, await worker(store), 6)
    assert [job.run_id for job in jobs] == [first.id] * 3 + [second.id] * 3


async def test_a_small_course_does_not_wait_for_a_large_one(store: Store) -> None:
    large = await started(store, 5_000, course="large")
    worker_id = await worker(store)
    await claimed(store, worker_id, 100)

    small = await started(store, 10, course="small")
    handed_out = [job.run_id for job in await claimed(store, worker_id, 35)]

    assert handed_out.count(small.id) == 10
    assert handed_out.count(large.id) == 25


async def test_courses_that_wait_take_turns(store: Store) -> None:
    one, two = await started(store, 10, course="one"), await started(store, 10, course="two")
    order = [job.run_id for job in await claimed(store, await worker(store), 20)]
    for served in range(20):
        assert abs(order[:served].count(one.id) - order[:served].count(two.id)) <= 2


async def test_a_course_does_not_pay_for_what_it_used_while_nobody_waited(store: Store) -> None:
    await end_all(store, await started(store, 50, course="busy"))

    newcomer = await started(store, 20, course="newcomer")
    busy = await started(store, 20, course="busy")

    order = [job.run_id for job in await claimed(store, await worker(store), 20)]
    assert abs(order.count(newcomer.id) - order.count(busy.id)) <= 2


async def test_a_course_does_not_save_up_turns_while_it_is_idle(store: Store) -> None:
    await end_all(store, await started(store, 1, course="idle"))
    busy = await started(store, 100, course="busy")
    worker_id = await worker(store)
    await claimed(store, worker_id, 60)

    idle = await started(store, 20, course="idle")

    order = [job.run_id for job in await claimed(store, worker_id, 20)]
    assert abs(order.count(idle.id) - order.count(busy.id)) <= 2


@pytest.mark.parametrize("taken_back_by", ["result", "expiry", "hand-back"])
async def test_a_job_that_is_tried_again_goes_in_front(store: Store, taken_back_by: str) -> None:
    await started(store, 5)
    first_worker = await worker(store)
    first, _ = await claimed(store, first_worker, 2)

    if taken_back_by == "result":
        await store.finish_job(claim_on(first), failure(Reason.RUNTIME_ERROR), NOW)
    elif taken_back_by == "expiry":
        await store.expire_leases(LEASE_OVER, LEASE)
    else:
        await store.deregister_worker(first_worker, NOW)

    (again,) = await store.claim_jobs(await worker(store), 1, later(90), LEASE)
    assert again.id == first.id


async def test_the_queues_depth_counts_what_is_queued(store: Store, peer: Store) -> None:
    assert await store.queue_depth() == 0
    await started(store, 3, post=True)
    await created(store, 3)
    assert await peer.queue_depth() == 3
    assert [await store.queue_depth(limit=limit) for limit in (1, 2, 3, 4)] == [1, 2, 3, 3]
    await claimed(store, await worker(store), 2)
    assert await peer.queue_depth() == 1
