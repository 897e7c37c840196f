"""Claims: every job goes to one worker, and an answer that got lost is given again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broadway_api.domain import Claim, JobState, Reason
from broadway_api.errors import UnknownWorker
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    LEASE,
    LEASE_OVER,
    NOW,
    claim_on,
    claimed,
    created,
    failure,
    jobs_of,
    later,
    started,
    states,
    success,
    worker,
)


async def test_a_claimed_job_is_the_workers_for_the_length_of_the_lease(store: Store, peer: Store) -> None:
    run = await started(store)
    (queued,) = await jobs_of(store, run)
    worker_id = await worker(store)

    (job,) = await store.claim_jobs(worker_id, 1, later(5), LEASE)

    assert job == replace(
        queued,
        state=JobState.RUNNING,
        attempt=1,
        worker_id=worker_id,
        started_at=later(5),
        lease_expires_at=later(5) + LEASE,
    )
    assert await peer.job(job.id) == job


async def test_an_empty_queue_hands_out_nothing(store: Store) -> None:
    await created(store, 3)  # not started: its jobs wait
    assert await store.claim_jobs(await worker(store), 5, NOW, LEASE) == []


async def test_a_worker_gets_as_many_jobs_as_it_asks_for_and_there_are(store: Store) -> None:
    run = await started(store, 5)
    worker_id = await worker(store)

    three = await claimed(store, worker_id, 3)
    rest = await store.claim_jobs(worker_id, 3, NOW, LEASE, holding=[job.id for job in three])

    assert [job.seq for job in three + rest] == [1, 2, 3, 4, 5]
    assert await states(store, run) == [JobState.RUNNING] * 5


async def test_a_worker_that_asks_for_no_job_gets_none(store: Store) -> None:
    run = await started(store)
    assert await store.claim_jobs(await worker(store), 0, NOW, LEASE) == []
    assert await states(store, run) == [JobState.QUEUED]


async def test_an_unknown_worker_gets_no_job(store: Store) -> None:
    run = await started(store)
    with pytest.raises(UnknownWorker):
        await store.claim_jobs(new_id(), 1, NOW, LEASE)
    assert await states(store, run) == [JobState.QUEUED]


async def test_a_worker_that_asks_is_alive(store: Store, peer: Store) -> None:
    worker_id = await worker(store)
    await store.claim_jobs(worker_id, 1, later(30), LEASE)
    assert (await peer.worker(worker_id)).last_seen == later(30)


async def test_a_clock_that_was_set_back_makes_no_worker_look_silent(store: Store) -> None:
    worker_id = await worker(store, seen=later(30))
    await store.claim_jobs(worker_id, 1, NOW, LEASE)
    assert (await store.worker(worker_id)).last_seen == later(30)


# --- many at once ---------------------------------------------------------------------------------------------------


async def test_a_job_is_handed_to_one_of_many_workers(store: Store, peer: Store) -> None:
    for _ in range(10):
        run = await started(store)
        workers = [await worker(store) for _ in range(8)]

        answers = await asyncio.gather(
            *((store, peer)[n % 2].claim_jobs(one, 1, NOW, LEASE) for n, one in enumerate(workers))
        )

        ((winner, (job,)),) = [(one, jobs) for one, jobs in zip(workers, answers, strict=True) if jobs]
        (stored,) = await jobs_of(store, run)
        assert (stored.worker_id, stored.attempt) == (winner, 1)
        assert stored.id == job.id
        await store.finish_job(claim_on(job), success(), NOW)


async def test_many_workers_share_the_jobs_without_losing_any(store: Store, peer: Store) -> None:
    run = await started(store, 40)
    workers = [await worker(store) for _ in range(10)]

    answers = await asyncio.gather(
        *((store, peer)[n % 2].claim_jobs(one, 5, NOW, LEASE) for n, one in enumerate(workers))
    )

    handed_out = {job.id: one for one, jobs in zip(workers, answers, strict=True) for job in jobs}
    assert sum(map(len, answers)) == 40
    assert {job.id: job.worker_id for job in await jobs_of(store, run)} == handed_out
    assert await store.queue_depth() == 0


# --- answers that got lost ------------------------------------------------------------------------------------------


async def test_a_job_whose_handing_out_got_lost_is_handed_out_again(store: Store, peer: Store) -> None:
    run = await started(store, 2)
    worker_id = await worker(store)
    (lost,) = await store.claim_jobs(worker_id, 1, NOW, LEASE)

    (again,) = await peer.claim_jobs(worker_id, 1, later(10), LEASE)

    assert again == replace(lost, lease_expires_at=later(10) + LEASE)
    assert await store.job(lost.id) == again
    assert await states(store, run) == [JobState.RUNNING, JobState.QUEUED]


async def test_a_claim_that_is_repeated_before_it_is_answered_gets_the_same_job(store: Store) -> None:
    await started(store, 5)
    worker_id, other = await worker(store), await worker(store)
    answers = await asyncio.gather(*(store.claim_jobs(one, 1, NOW, LEASE) for one in (worker_id, other, worker_id)))
    first, others, again = (job for (job,) in answers)
    assert first == again
    assert first != others
    assert await store.held_jobs(worker_id) == [first]


async def test_a_job_that_the_worker_knows_of_is_not_handed_out_again(store: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)
    known, lost = await store.claim_jobs(worker_id, 2, NOW, LEASE)

    jobs = await store.claim_jobs(worker_id, 2, later(10), LEASE, holding=[known.id])

    assert [(job.seq, job.attempt) for job in jobs] == [(lost.seq, 1), (3, 1)]
    assert (await store.job(known.id)).lease_expires_at == LEASE_OVER


async def test_lost_jobs_come_before_new_ones_and_no_more_than_asked_for(store: Store) -> None:
    await started(store, 4)
    worker_id = await worker(store)
    await store.claim_jobs(worker_id, 3, NOW, LEASE)

    jobs = await store.claim_jobs(worker_id, 2, later(10), LEASE)

    assert [(job.seq, job.attempt) for job in jobs] == [(1, 1), (2, 1)]
    assert await store.queue_depth() == 1


async def test_holding_what_another_worker_has_changes_nothing(store: Store) -> None:
    await started(store, 2)
    (others,) = await claimed(store, await worker(store))

    (job,) = await store.claim_jobs(await worker(store), 1, NOW, LEASE, holding=[others.id, new_id()])

    assert job.seq == 2
    assert await store.job(others.id) == others


async def test_a_job_that_ran_out_is_not_handed_out_again_as_if_it_had_not(store: Store) -> None:
    await started(store)
    worker_id = await worker(store)
    await claimed(store, worker_id)
    await store.expire_leases(LEASE_OVER, LEASE)

    (again,) = await store.claim_jobs(worker_id, 1, later(90), LEASE)

    assert again.attempt == 2
    assert len(again.attempts) == 1


async def test_results_and_a_claim_may_go_to_the_store_together(store: Store, peer: Store) -> None:
    run = await started(store, 5)
    worker_id = await worker(store)
    first, second = await claimed(store, worker_id, 2)
    unknown = Claim(job_id=new_id(), worker_id=worker_id, attempt=1)
    results = [(claim_on(first), success()), (unknown, success()), (claim_on(second), failure(Reason.RUNTIME_ERROR))]

    known = [first.id, unknown.job_id, second.id]
    answers, jobs = await store.exchange(worker_id, results, 2, NOW, LEASE, holding=known)

    assert [getattr(answer, "job_id", None) or answer.job.state for answer in answers] == [  # type: ignore[union-attr]
        JobState.SUCCEEDED,
        unknown.job_id,
        JobState.QUEUED,
    ]
    assert [(job.state, job.worker_id) for job in jobs] == [(JobState.RUNNING, worker_id)] * 2
    assert {job.id for job in jobs}.isdisjoint(known)
    assert await peer.job(jobs[0].id) == jobs[0]
    assert sorted(await states(store, run)) == sorted(
        [JobState.SUCCEEDED, JobState.RUNNING, JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
    )
    repeated, others = await peer.exchange(worker_id, results[:1], 5, NOW, LEASE, holding=[job.id for job in jobs])
    assert [getattr(answer, "repeated", None) for answer in repeated] == [True]
    assert len(others) == 2  # the one that was never handed out, and the one that came back
    with pytest.raises(UnknownWorker):
        await store.exchange(new_id(), [], 1, NOW, LEASE)
