"""Leases: heartbeats renew them, and jobs whose lease ran out go to somebody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broadway_api.domain import Attempt, Claim, JobState, LostJob, Reason
from broadway_api.errors import UnknownWorker
from broadway_api.ids import new_id
from broadway_api.lifecycle import RETRY_ELSEWHERE
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    ATTEMPT_LIMIT,
    LEASE,
    LEASE_OVER,
    NOW,
    cancelled,
    claim_on,
    claimed,
    jobs_of,
    later,
    running,
    started,
    success,
    worker,
)

# --- heartbeats -----------------------------------------------------------------------------------------------------


async def test_a_heartbeat_renews_the_jobs_that_it_names(store: Store, peer: Store) -> None:
    await started(store, 2)
    worker_id = await worker(store)
    named, unnamed = await claimed(store, worker_id, 2)

    assert await store.heartbeat(worker_id, [claim_on(named)], later(30), LEASE) == []

    assert await peer.job(named.id) == replace(named, lease_expires_at=later(30) + LEASE)
    assert await peer.job(unnamed.id) == unnamed


async def test_a_heartbeat_that_names_nothing_at_all_renews_every_job(store: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)
    jobs = await claimed(store, worker_id, 2)
    (others,) = await claimed(store, await worker(store))

    assert await store.heartbeat(worker_id, None, later(30), LEASE) == []

    assert [(await store.job(job.id)).lease_expires_at for job in jobs] == [later(30) + LEASE] * 2
    assert await store.job(others.id) == others


async def test_a_heartbeat_of_an_idle_worker_renews_nothing(store: Store) -> None:
    job = await running(store)
    assert await store.heartbeat(claim_on(job).worker_id, [], later(30), LEASE) == []
    assert await store.job(job.id) == job


async def test_a_heartbeat_says_that_the_worker_lives(store: Store, peer: Store) -> None:
    worker_id = await worker(store)
    await store.heartbeat(worker_id, [], later(30), LEASE)
    assert (await peer.worker(worker_id)).last_seen == later(30)
    await store.heartbeat(worker_id, None, later(20), LEASE)
    assert (await peer.worker(worker_id)).last_seen == later(30)


async def test_a_heartbeat_without_an_attempt_renews_what_the_worker_holds(store: Store) -> None:
    job = await running(store)
    claim = replace(claim_on(job), attempt=None)
    assert await store.heartbeat(claim.worker_id, [claim], later(30), LEASE) == []
    assert (await store.job(job.id)).lease_expires_at == later(30) + LEASE


async def test_a_heartbeat_learns_which_jobs_are_lost(store: Store) -> None:
    await started(store, 5)
    worker_id = await worker(store)
    held, finished, expired, stale = await claimed(store, worker_id, 4)
    (others,) = await claimed(store, await worker(store))
    await store.finish_job(claim_on(finished), success(), NOW)
    await store.heartbeat(worker_id, [claim_on(held), claim_on(stale)], later(30), LEASE)
    await store.expire_leases(LEASE_OVER, LEASE)

    named = [
        claim_on(held),
        claim_on(finished),
        claim_on(expired),
        replace(claim_on(stale), attempt=7),
        Claim(job_id=others.id, worker_id=worker_id, attempt=1),
        Claim(job_id=new_id(), worker_id=worker_id, attempt=1),
    ]
    before = [await store.job(job.id) for job in (finished, expired, stale, others)]

    lost = await store.heartbeat(worker_id, named, later(70), LEASE)

    assert lost == [claim.job_id for claim in named[1:]]
    assert (await store.job(held.id)).lease_expires_at == later(70) + LEASE
    assert [await store.job(job.id) for job in (finished, expired, stale, others)] == before


async def test_a_heartbeat_in_time_or_not_keeps_a_job_that_nobody_took(store: Store) -> None:
    """Its lease is over, but it was not given to anybody: nothing is won by running it twice."""
    job = await running(store)
    assert await store.heartbeat(claim_on(job).worker_id, [claim_on(job)], later(500), LEASE) == []
    assert await store.expire_leases(later(500), LEASE) == []
    assert (await store.job(job.id)).state is JobState.RUNNING


async def test_an_unknown_workers_heartbeat_is_refused(store: Store) -> None:
    for named in (None, [], [Claim(job_id=new_id(), worker_id=new_id(), attempt=1)]):
        with pytest.raises(UnknownWorker):
            await store.heartbeat(new_id(), named, NOW, LEASE)


# --- leases that run out --------------------------------------------------------------------------------------------


async def test_a_lease_that_ran_out_puts_the_job_back(store: Store, peer: Store) -> None:
    job = await running(store)
    claim = claim_on(job)

    lost = await store.expire_leases(LEASE_OVER, LEASE)

    assert lost == [LostJob(job_id=job.id, run_id=job.run_id, worker_id=claim.worker_id, state=JobState.QUEUED)]
    ended = Attempt(
        number=1,
        worker_id=claim.worker_id,
        reason=Reason.WORKER_LOST,
        started_at=NOW,
        finished_at=LEASE_OVER,
        reported=False,
    )
    assert await peer.job(job.id) == replace(
        job,
        state=JobState.QUEUED,
        worker_id=None,
        lease_expires_at=None,
        avoid_worker_id=claim.worker_id,
        avoid_until=LEASE_OVER + RETRY_ELSEWHERE,
        started_at=None,
        attempts=(ended,),
    )
    assert await peer.workers() == [(await store.worker(claim.worker_id), [])]


async def test_a_lease_lasts_until_its_end(store: Store) -> None:
    job = await running(store)
    assert await store.expire_leases(later(59.999), LEASE) == []
    assert await store.job(job.id) == job


async def test_only_leases_that_are_over_run_out(store: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)
    early, renewed = await claimed(store, worker_id, 2)
    (late,) = await claimed(store, worker_id, now=later(30))
    await store.heartbeat(worker_id, [claim_on(renewed)], later(30), LEASE)

    assert [lost.job_id for lost in await store.expire_leases(LEASE_OVER, LEASE)] == [early.id]

    assert [(await store.job(job.id)).state for job in (renewed, late)] == [JobState.RUNNING] * 2


async def test_a_job_that_loses_every_worker_fails(store: Store) -> None:
    await started(store)
    for attempt in range(1, ATTEMPT_LIMIT + 1):
        (job,) = await claimed(store, await worker(store))
        assert job.attempt == attempt
        (lost,) = await store.expire_leases(LEASE_OVER, LEASE)

    assert lost.state is JobState.FAILED
    stored = await store.job(job.id)
    assert (stored.state, stored.reason, stored.finished_at) == (JobState.FAILED, Reason.WORKER_LOST, LEASE_OVER)
    assert [(ended.number, ended.reported) for ended in stored.attempts] == [(1, False), (2, False), (3, False)]
    assert not (await store.run_progress(job.run_id)).unfinished


async def test_of_two_sweepers_one_takes_each_job_back(store: Store, peer: Store) -> None:
    run = await started(store, 30)
    await claimed(store, await worker(store), 30)

    answers = await asyncio.gather(*(one.expire_leases(LEASE_OVER, LEASE) for one in (store, peer) * 2))

    lost = [one.job_id for answer in answers for one in answer]
    assert sorted(lost) == sorted(job.id for job in await jobs_of(store, run))
    for job_id in lost:
        assert len((await store.job(job_id)).attempts) == 1


async def test_either_the_heartbeat_or_the_expiry_wins(store: Store, peer: Store) -> None:
    for _ in range(5):
        run = await started(store, 20)
        worker_id = await worker(store)
        jobs = await claimed(store, worker_id, 20)
        claims = [claim_on(job) for job in jobs]

        said_lost, lost = await asyncio.gather(
            store.heartbeat(worker_id, claims, LEASE_OVER, LEASE), peer.expire_leases(LEASE_OVER, LEASE)
        )

        taken_back = {one.job_id for one in lost}
        assert set(said_lost) == taken_back
        for job in jobs:
            stored = await store.job(job.id)
            assert stored.state is (JobState.QUEUED if job.id in taken_back else JobState.RUNNING)
        await cancelled(store, run.id)  # what was taken back is not for the next round
