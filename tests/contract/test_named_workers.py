"""Workers that chose their own ids, and what a store knows of what such a worker was given."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broadway_api.domain import JobState, Worker
from broadway_api.errors import UnknownWorker, WorkerNameTaken
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import LEASE, NOW, claim_on, claimed, later, started, success, worker


def named(name: str | None) -> Worker:
    return Worker(id=new_id(), hostname="eniac", registered_at=NOW, last_seen=NOW, name=name)


async def test_a_worker_is_found_by_the_name_that_it_chose(store: Store, peer: Store) -> None:
    chosen, other = named("höst-1_a"), named("host-2")
    await store.register_worker(chosen)
    await store.register_worker(other)
    assert await peer.worker_named("höst-1_a") == chosen
    with pytest.raises(UnknownWorker):
        await peer.worker_named("host-3")


async def test_a_name_is_had_by_one_worker_at_a_time(store: Store, peer: Store) -> None:
    first, second = named("host"), named("host")
    await store.register_worker(first)
    with pytest.raises(WorkerNameTaken) as caught:
        await peer.register_worker(second)
    assert caught.value.name == "host"
    with pytest.raises(UnknownWorker):
        await peer.worker(second.id)
    await store.deregister_worker(first.id, NOW)
    await peer.register_worker(second)
    assert (await store.worker_named("host")).id == second.id


async def test_of_many_that_choose_one_name_at_once_one_gets_it(store: Store, peer: Store) -> None:
    attempts = [store.register_worker(named("host")) for _ in range(8)]
    attempts += [peer.register_worker(named("host")) for _ in range(8)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, WorkerNameTaken) for outcome in outcomes) == 15


async def test_workers_without_a_name_do_not_get_in_each_others_way(store: Store) -> None:
    await store.register_worker(named(None))
    await store.register_worker(named(None))
    assert len(await store.workers()) == 2


async def test_a_worker_holds_its_jobs_in_the_order_in_which_it_got_them(store: Store, peer: Store) -> None:
    await started(store, 5)
    mine, other = await worker(store), await worker(store)
    (second,) = await store.claim_jobs(mine, 1, later(2), LEASE)
    (third,) = await store.claim_jobs(mine, 1, later(3), LEASE, holding=[second.id])
    (first,) = await store.claim_jobs(mine, 1, later(1), LEASE, holding=[second.id, third.id])
    (gone,) = await store.claim_jobs(mine, 1, later(0), LEASE, holding=[second.id, third.id, first.id])
    await claimed(store, other)
    await store.finish_job(claim_on(gone), success(), later(4))

    assert await peer.held_jobs(mine) == [first, second, third]
    assert all(job.state is JobState.RUNNING for job in await peer.held_jobs(other))
    assert await peer.held_jobs(new_id()) == []


async def test_when_a_worker_last_asked_for_work_is_kept_and_heartbeats_do_not_count(store: Store, peer: Store) -> None:
    asking = named("host")
    await store.register_worker(asking)
    assert (await store.claim_jobs(asking.id, 1, later(5), LEASE)) == []
    await store.heartbeat(asking.id, None, later(9), LEASE)
    assert await peer.worker(asking.id) == replace(asking, asked_at=later(5), last_seen=later(9))


async def test_each_question_of_a_worker_with_a_name_is_noted_however_soon_it_comes(store: Store) -> None:
    """When it last asked says which of its jobs it still works on."""
    eniac = named("eniac")
    await store.register_worker(eniac)
    for asked in (NOW, later(0.1)):
        await store.claim_jobs(eniac.id, 1, asked, LEASE)
        assert (await store.worker(eniac.id)).asked_at == asked
