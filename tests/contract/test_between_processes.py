"""What API processes that share a store share beside its data: its clock, and the news that jobs were queued."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broadway_api.domain import JobState, Reason
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


async def heard(listening: asyncio.Task[None], at: Store, queue: Callable[[], Awaitable[Any]]) -> asyncio.Task[None]:
    """Fails unless the listener hears of what `queue` does; returns the next one, which hears what comes after."""
    while (await asyncio.wait([listening], timeout=0.5))[0]:  # what was queued before
        listening = asyncio.create_task(at.jobs_queued_elsewhere())
    await queue()
    await asyncio.wait_for(listening, DEADLINE)
    return asyncio.create_task(at.jobs_queued_elsewhere())


async def listener(store: Store, peer: Store) -> asyncio.Task[None]:
    """One that is known to hear: it may have missed what was before it began."""
    listening = asyncio.create_task(peer.jobs_queued_elsewhere())
    async with asyncio.timeout(DEADLINE):
        while not listening.done():
            await started(store)
            await asyncio.wait([listening], timeout=0.5)
    return asyncio.create_task(peer.jobs_queued_elsewhere())


@pytest.mark.parametrize("backend", ["mongo-replica-set"], indirect=True)
async def test_whatever_queues_jobs_is_heard_of_elsewhere(store: Store, peer: Store) -> None:
    listening = await listener(store, peer)
    await started(store, 3)
    (faulty,), (leaving,), (silent,) = [await claimed(store, await worker(store)) for _ in range(3)]

    listening = await heard(listening, peer, lambda: started(store))
    fault = failure(Reason.RUNTIME_ERROR)
    listening = await heard(listening, peer, lambda: store.finish_job(claim_on(faulty), fault, NOW))
    left = claim_on(leaving).worker_id
    listening = await heard(listening, peer, lambda: store.deregister_worker(left, NOW))
    listening = await heard(listening, peer, lambda: store.expire_leases(LEASE_OVER, LEASE))

    assert (await store.job(silent.id)).state is JobState.QUEUED
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening


@pytest.mark.parametrize("backend", ["mongo-replica-set"], indirect=True)
async def test_what_was_queued_between_two_calls_is_not_missed(store: Store, peer: Store) -> None:
    listening = await listener(store, peer)
    while (await asyncio.wait([listening], timeout=0.5))[0]:
        listening = asyncio.create_task(peer.jobs_queued_elsewhere())
    await started(store)
    await asyncio.wait_for(listening, DEADLINE)

    await started(store)  # while nobody listens

    await asyncio.wait_for(peer.jobs_queued_elsewhere(), DEADLINE)


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
