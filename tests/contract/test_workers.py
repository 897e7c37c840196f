"""Workers: registered, listed with what they hold, and forgotten without losing a job."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broadway_api.domain import Attempt, JobState, LostJob, Reason, Worker
from broadway_api.errors import UnknownWorker
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    ATTEMPT_LIMIT,
    LEASE,
    LEASE_OVER,
    NOW,
    claim_on,
    claimed,
    later,
    running,
    started,
    success,
    worker,
)


async def test_a_registered_worker_can_be_read_by_everybody(store: Store, peer: Store) -> None:
    new = Worker(
        id=new_id(),
        hostname="gräder-1",
        slots=8,
        runtime="docker",
        version="1.0",
        labels={"zone": "a", "$gpu.kind": "none", "b": "2"},
        registered_at=NOW,
        last_seen=later(1),
        jobs_processed=3,
    )
    await store.register_worker(new)
    assert await peer.worker(new.id) == new
    assert list((await peer.worker(new.id)).labels) == ["zone", "$gpu.kind", "b"]


async def test_an_unknown_worker_is_unknown(store: Store) -> None:
    with pytest.raises(UnknownWorker):
        await store.worker(new_id())


async def test_workers_are_listed_by_hostname_with_what_they_hold(store: Store, peer: Store) -> None:
    await started(store, 3)
    late, early, idle = await worker(store, "b"), await worker(store, "a"), await worker(store, "b")
    (first,) = await claimed(store, late)
    second, third = await claimed(store, early, 2)
    await store.finish_job(claim_on(third), success(), NOW)

    listed = await peer.workers()

    assert [one.id for one, _ in listed] == [early, *sorted([late, idle])]
    assert {one.id: held for one, held in listed} == {early: [second.id], late: [first.id], idle: []}
    assert [one for one, _ in listed] == [await peer.worker(one.id) for one, _ in listed]


# --- handing back ---------------------------------------------------------------------------------------------------


async def test_a_deregistered_worker_hands_back_its_jobs_at_no_cost(store: Store, peer: Store) -> None:
    job = await running(store)
    worker_id = claim_on(job).worker_id

    lost = await store.deregister_worker(worker_id, later(20))

    assert lost == [LostJob(job_id=job.id, run_id=job.run_id, worker_id=worker_id, state=JobState.QUEUED)]
    ended = Attempt(number=1, worker_id=worker_id, reason=None, started_at=NOW, finished_at=later(20), reported=False)
    assert await peer.job(job.id) == replace(
        job,
        state=JobState.QUEUED,
        worker_id=None,
        lease_expires_at=None,
        started_at=None,
        attempts=(ended,),
        attempt_limit=ATTEMPT_LIMIT + 1,
    )


async def test_a_job_that_is_handed_back_again_and_again_never_fails(store: Store) -> None:
    await started(store)
    for attempt in range(1, 2 * ATTEMPT_LIMIT + 1):
        worker_id = await worker(store)
        (job,) = await claimed(store, worker_id)
        assert job.attempt == attempt
        (lost,) = await store.deregister_worker(worker_id, NOW)
        assert lost.state is JobState.QUEUED


async def test_a_job_that_died_with_its_worker_has_cost_an_attempt(store: Store, peer: Store) -> None:
    run = await started(store)
    for attempt in range(1, ATTEMPT_LIMIT + 1):
        worker_id = await worker(store)
        (job,) = await claimed(store, worker_id)
        (lost,) = await store.deregister_worker(worker_id, NOW, crashed=True)
        assert lost.state is (JobState.QUEUED if attempt < ATTEMPT_LIMIT else JobState.FAILED)
    ended = await peer.job(job.id)
    assert (ended.state, ended.reason, ended.attempt_limit) == (JobState.FAILED, Reason.WORKER_LOST, ATTEMPT_LIMIT)
    assert (await peer.run_summary(run.id)).reasons == {Reason.WORKER_LOST: 1}


async def test_a_deregistered_worker_is_unknown(store: Store) -> None:
    worker_id = await worker(store)
    assert await store.deregister_worker(worker_id, NOW) == []

    assert await store.workers() == []
    with pytest.raises(UnknownWorker):
        await store.worker(worker_id)
    with pytest.raises(UnknownWorker):
        await store.deregister_worker(worker_id, NOW)
    with pytest.raises(UnknownWorker):
        await store.claim_jobs(worker_id, 1, NOW, LEASE)
    with pytest.raises(UnknownWorker):
        await store.heartbeat(worker_id, None, NOW, LEASE)


async def test_a_deregistered_worker_hands_back_only_what_it_holds(store: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)
    held, finished = await claimed(store, worker_id, 2)
    (others,) = await claimed(store, await worker(store))
    await store.finish_job(claim_on(finished), success(), NOW)
    untouched = [await store.job(job.id) for job in (finished, others)]

    assert [lost.job_id for lost in await store.deregister_worker(worker_id, NOW)] == [held.id]

    assert [await store.job(job.id) for job in (finished, others)] == untouched


async def test_a_job_is_handed_back_or_runs_out_but_not_both(store: Store, peer: Store) -> None:
    await started(store, 20)
    worker_id = await worker(store)
    jobs = await claimed(store, worker_id, 20)

    handed_back, expired = await asyncio.gather(
        store.deregister_worker(worker_id, LEASE_OVER), peer.expire_leases(LEASE_OVER, LEASE)
    )

    assert sorted(lost.job_id for lost in handed_back + expired) == sorted(job.id for job in jobs)
    for lost in handed_back:
        assert (await store.job(lost.job_id)).attempt_limit == ATTEMPT_LIMIT + 1
    for lost in expired:
        assert (await store.job(lost.job_id)).attempt_limit == ATTEMPT_LIMIT


# --- forgetting -----------------------------------------------------------------------------------------------------


async def test_silent_workers_are_forgotten(store: Store) -> None:
    silent, alive = await worker(store), await worker(store, seen=later(100))

    assert await store.forget_workers(later(100)) == 1

    assert [one.id for one, _ in await store.workers()] == [alive]
    with pytest.raises(UnknownWorker):
        await store.worker(silent)


async def test_a_silent_worker_that_holds_a_job_is_kept_until_it_loses_it(store: Store) -> None:
    job = await running(store)
    assert await store.forget_workers(later(1_000)) == 0
    assert (await store.worker(claim_on(job).worker_id)).id == claim_on(job).worker_id

    await store.expire_leases(LEASE_OVER, LEASE)

    assert await store.forget_workers(later(1_000)) == 1
