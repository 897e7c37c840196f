"""What API processes that share a store share beside its data: its clock, and the news that jobs were queued."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from broadway_api.domain import Reason
from broadway_api.store.port import Store
from tests.contract.backends import Backend
from tests.contract.scenarios import LEASE, LEASE_OVER, NOW, claim_on, claimed, failure, later, running, started, worker

DEADLINE = 20


async def test_the_stores_clock_is_that_of_everybody(store: Store, peer: Store) -> None:
    """All of it runs on this machine, so it is also this machine's."""
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # stores keep whole ones
    first, second = await store.time(), await peer.time()
    assert before <= first <= second <= datetime.now(UTC)
    assert first.tzinfo is not None


async def test_leases_given_before_the_clock_was_set_back_are_cut(store: Store, peer: Store) -> None:
    """Without that, a job whose worker died would be waited for as long as the clock was set back."""
    job = await running(store)
    an_hour_ago = later(-3_600)

    assert await store.expire_leases(an_hour_ago, LEASE) == []
    assert (await peer.job(job.id)).lease_expires_at == an_hour_ago + LEASE
    assert [lost.job_id for lost in await peer.expire_leases(an_hour_ago + LEASE, LEASE)] == [job.id]


async def test_leases_of_this_clock_are_not_cut(store: Store) -> None:
    job = await running(store)
    await store.expire_leases(NOW, LEASE)
    assert await store.job(job.id) == job


# --- the news -------------------------------------------------------------------------------------------------------


async def queue_by_starting(store: Store) -> None:
    await started(store)


async def queue_by_fault(store: Store) -> None:
    job = await running(store)
    await store.finish_job(claim_on(job), failure(Reason.RUNTIME_ERROR), NOW)


async def queue_by_expiry(store: Store) -> None:
    await running(store)
    await store.expire_leases(LEASE_OVER, LEASE)


async def queue_by_hand_back(store: Store) -> None:
    job = await running(store)
    await store.deregister_worker(claim_on(job).worker_id, NOW)


@pytest.mark.parametrize("backend", ["mongo-replica-set"], indirect=True)
async def test_jobs_queued_elsewhere_are_heard_of(store: Store, peer: Store) -> None:
    for queue in (queue_by_starting, queue_by_fault, queue_by_expiry, queue_by_hand_back):
        await heard_of(queue, by=store, at=peer)


async def heard_of(queue: Callable[[Store], Awaitable[None]], *, by: Store, at: Store) -> None:
    """Fails unless that is heard of. It may need a second time: who begins to listen misses what was before."""
    heard = asyncio.create_task(at.jobs_queued_elsewhere())
    async with asyncio.timeout(DEADLINE):
        while not heard.done():
            await queue(by)
            await asyncio.wait([heard], timeout=0.5)
    await heard


@pytest.mark.parametrize("backend", ["mongo-replica-set"], indirect=True)
async def test_what_was_queued_between_two_calls_is_not_missed(store: Store, peer: Store) -> None:
    await heard_of(queue_by_starting, by=store, at=peer)
    listening = asyncio.create_task(peer.jobs_queued_elsewhere())
    while (await asyncio.wait([listening], timeout=0.5))[0]:  # it may have been rung more often than was needed
        listening = asyncio.create_task(peer.jobs_queued_elsewhere())
    for _ in range(2):
        await started(store)
        await asyncio.wait_for(listening, DEADLINE)
        await started(store)  # while nobody listens
        await asyncio.wait_for(peer.jobs_queued_elsewhere(), DEADLINE)
        listening = asyncio.create_task(peer.jobs_queued_elsewhere())
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening


async def test_listening_can_be_given_up_and_begun_again(store: Store, peer: Store) -> None:
    for _ in range(2):
        listening = asyncio.create_task(peer.jobs_queued_elsewhere())
        await asyncio.wait([listening], timeout=0.2)
        assert not listening.done()
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
    await started(store)
    assert len(await claimed(peer, await worker(peer))) == 1


@pytest.mark.parametrize("backend", ["sqlite", "mongo-standalone"], indirect=True)
async def test_where_nothing_can_be_heard_the_call_never_returns(backend: Backend, store: Store, peer: Store) -> None:
    listening = asyncio.create_task(peer.jobs_queued_elsewhere())
    await started(store)
    await asyncio.wait([listening], timeout=0.5)
    assert not listening.done()
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
