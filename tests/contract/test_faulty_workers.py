"""Workers that fail what they are given, and workers that staff send on a break: what they get, and what others get."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broadway_api.domain import JobState, Reason, Worker
from broadway_api.errors import UnknownWorker
from broadway_api.ids import new_id
from broadway_api.lifecycle import RETRY_ELSEWHERE
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    LEASE,
    LEASE_OVER,
    NOW,
    cancelled,
    claim_on,
    claimed,
    failure,
    later,
    running,
    started,
    success,
    worker,
)

LIMIT = 3
PAUSE = timedelta(seconds=60)
FAULT = failure(Reason.RUNTIME_ERROR)


async def strike(store: Store, worker_id: str, times: int = 1, *, seconds: float = 0) -> Worker:
    """Infrastructure faults of a worker that is known."""
    for _ in range(times):
        assert await store.strike_worker(worker_id, later(seconds), limit=LIMIT, pause=PAUSE)
    return await store.worker(worker_id)


async def number_claimed(store: Store, worker_id: str, *, seconds: float, holding: list[str] | None = None) -> int:
    """How many jobs a worker gets that asks for five."""
    return len(await store.claim_jobs(worker_id, 5, later(seconds), LEASE, holding=holding or []))


# --- draining -------------------------------------------------------------------------------------------------------


async def test_a_draining_worker_gets_no_new_jobs_until_it_is_back(store: Store, peer: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)

    await store.set_draining(worker_id, True)

    assert (await peer.worker(worker_id)).draining
    assert await number_claimed(peer, worker_id, seconds=1) == 0
    assert await number_claimed(peer, await worker(store), seconds=1) == 3
    await started(store, 3)
    await store.set_draining(worker_id, False)
    assert not (await peer.worker(worker_id)).draining
    assert await number_claimed(peer, worker_id, seconds=1) == 3


async def test_a_draining_worker_keeps_and_ends_what_it_holds(store: Store) -> None:
    await started(store, 2)
    worker_id = await worker(store)
    (job,) = await claimed(store, worker_id)
    await store.set_draining(worker_id, True)

    (again,) = await store.claim_jobs(worker_id, 5, later(1), LEASE)  # it never got that answer
    assert again == replace(job, lease_expires_at=later(1) + LEASE)
    assert await store.heartbeat(worker_id, [claim_on(job)], later(2), LEASE) == []
    assert (await store.finish_job(claim_on(job), success(), later(3))).job.state is JobState.SUCCEEDED


async def test_an_unknown_worker_cannot_drain(store: Store) -> None:
    for draining in (True, False):
        with pytest.raises(UnknownWorker):
            await store.set_draining(new_id(), draining)


# --- quarantine -----------------------------------------------------------------------------------------------------


async def test_faults_in_a_row_put_a_worker_in_quarantine(store: Store, peer: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)

    assert (await strike(store, worker_id, LIMIT - 1)).quarantined_until is None
    struck = await strike(peer, worker_id)

    assert (struck.strikes, struck.quarantined_until) == (LIMIT, NOW + PAUSE)
    assert await peer.worker(worker_id) == struck
    assert await number_claimed(store, worker_id, seconds=59.999) == 0
    assert await number_claimed(store, await worker(store), seconds=59.999) == 3


async def test_an_unknown_worker_cannot_be_struck(store: Store) -> None:
    assert await store.strike_worker(new_id(), NOW, limit=LIMIT, pause=PAUSE) is None


async def test_what_fails_during_a_quarantine_does_not_lengthen_it(store: Store) -> None:
    """A machine with many slots fails all that it was given at once: that is one lesson, not many."""
    worker_id = await worker(store)
    struck = await strike(store, worker_id, LIMIT)
    assert await strike(store, worker_id, 5, seconds=30) == struck
    assert await store.worker(worker_id) == struck


async def test_after_its_quarantine_a_worker_gets_one_job_at_a_time(store: Store) -> None:
    await started(store, 4)
    worker_id = await worker(store)
    await strike(store, worker_id, LIMIT)

    (probe,) = await store.claim_jobs(worker_id, 5, later(60), LEASE)

    assert await number_claimed(store, worker_id, seconds=61, holding=[probe.id]) == 0
    (again,) = await store.claim_jobs(worker_id, 5, later(62), LEASE)  # had the answer got lost
    assert (again.id, again.attempt) == (probe.id, probe.attempt)


@pytest.mark.parametrize("result", [success(), failure()], ids=["success", "student's fault"])
async def test_a_probe_that_ends_without_blame_ends_the_quarantine(store: Store, peer: Store, result: object) -> None:
    await started(store, 4)
    worker_id = await worker(store)
    await strike(store, worker_id, LIMIT)
    (probe,) = await store.claim_jobs(worker_id, 5, later(60), LEASE)

    await store.finish_job(claim_on(probe), result, later(70))  # type: ignore[arg-type]

    cleared = await peer.worker(worker_id)
    assert (cleared.strikes, cleared.quarantined_until) == (0, None)
    assert await number_claimed(store, worker_id, seconds=71) == 3


async def test_a_probe_that_fails_doubles_the_pause(store: Store) -> None:
    await started(store, 2)
    worker_id = await worker(store)
    until = (await strike(store, worker_id, LIMIT)).quarantined_until
    for doubled in (2, 4, 8, 16, 32, 32):
        assert until is not None
        seconds = (until - NOW).total_seconds()
        until = (await strike(store, worker_id, seconds=seconds)).quarantined_until
        assert until == later(seconds) + doubled * PAUSE
        assert await number_claimed(store, worker_id, seconds=seconds) == 0


async def test_an_infrastructure_fault_clears_nobody(store: Store) -> None:
    await started(store, 2)
    worker_id = await worker(store)
    (job,) = await claimed(store, worker_id)
    await strike(store, worker_id, 2)
    await store.finish_job(claim_on(job), FAULT, NOW)
    assert (await store.worker(worker_id)).strikes == 2


async def test_a_good_result_forgives_what_was_before(store: Store) -> None:
    await started(store, 2)
    worker_id = await worker(store)
    (job,) = await claimed(store, worker_id)
    await strike(store, worker_id, LIMIT - 1)
    await store.finish_job(claim_on(job), success(), NOW)
    assert (await strike(store, worker_id, LIMIT - 1)).quarantined_until is None


async def test_staff_can_end_a_quarantine(store: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)
    await strike(store, worker_id, LIMIT)

    await store.set_draining(worker_id, False)

    assert (await store.worker(worker_id)).strikes == 0
    assert await number_claimed(store, worker_id, seconds=1) == 3


async def test_an_answer_that_got_lost_is_given_again_in_quarantine(store: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)
    held = await claimed(store, worker_id, 2)
    await strike(store, worker_id, LIMIT)

    again = await store.claim_jobs(worker_id, 5, later(1), LEASE)

    assert [(job.id, job.attempt) for job in again] == [(job.id, 1) for job in held]


# --- another worker first -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["result", "expiry"])
async def test_another_worker_is_first_to_try_what_one_failed(store: Store, fault: str) -> None:
    job = await running(store)
    failing = claim_on(job).worker_id
    other = await worker(store, seen=LEASE_OVER)
    if fault == "result":
        await store.finish_job(claim_on(job), FAULT, LEASE_OVER)
    else:
        await store.expire_leases(LEASE_OVER, LEASE)

    assert await store.claim_jobs(failing, 1, later(61), LEASE) == []
    (again,) = await store.claim_jobs(other, 1, later(61), LEASE)
    assert (again.id, again.attempt) == (job.id, 2)


async def test_who_must_let_others_try_first_gets_other_jobs(store: Store) -> None:
    await started(store, 3)
    failing, _ = await worker(store), await worker(store)
    first, second = await claimed(store, failing, 2)
    await store.finish_job(claim_on(first), FAULT, NOW)

    jobs = await store.claim_jobs(failing, 5, later(1), LEASE, holding=[second.id])

    assert [job.seq for job in jobs] == [3]


async def test_who_is_alone_tries_again_at_once_after_all_else(store: Store) -> None:
    await started(store, 3)
    alone = await worker(store)
    await worker(store, seen=later(-61))  # it was not heard of for longer than a lease lasts
    (first,) = await claimed(store, alone)
    await store.finish_job(claim_on(first), FAULT, NOW)

    jobs = await store.claim_jobs(alone, 5, NOW, LEASE)

    assert [(job.seq, job.attempt) for job in jobs] == [(2, 1), (3, 1), (1, 2)]


async def test_nobody_waits_for_another_worker_for_long(store: Store) -> None:
    job = await running(store)
    failing, _ = claim_on(job).worker_id, await worker(store)
    await store.finish_job(claim_on(job), FAULT, NOW)
    seconds = RETRY_ELSEWHERE.total_seconds()

    assert await store.claim_jobs(failing, 1, later(seconds - 0.001), LEASE) == []
    (again,) = await store.claim_jobs(failing, 1, later(seconds), LEASE)
    assert again.id == job.id


async def test_a_job_that_was_handed_back_avoids_nobody(store: Store) -> None:
    job = await running(store)
    other = await worker(store)
    await store.deregister_worker(claim_on(job).worker_id, NOW)
    queued = await store.job(job.id)
    assert (queued.avoid_worker_id, queued.avoid_until) == (None, None)
    assert await number_claimed(store, other, seconds=1) == 1


# --- whose fault a missing image is ---------------------------------------------------------------------------------


async def test_a_runs_jobs_count_as_finished_elsewhere_only_without_an_infrastructure_fault(store: Store) -> None:
    run = await started(store, 4, attempt_limit=1)
    mine, others = await worker(store), await worker(store)
    (own,) = await claimed(store, mine)
    faulty, good, _ = await claimed(store, others, 3)

    await store.finish_job(claim_on(own), success(), NOW)
    assert not await store.finished_elsewhere(run.id, mine)
    await store.finish_job(claim_on(faulty), failure(Reason.IMAGE_UNAVAILABLE), NOW)
    assert not await store.finished_elsewhere(run.id, mine)
    await store.finish_job(claim_on(good), failure(), NOW)

    assert await store.finished_elsewhere(run.id, mine)
    other_run = await started(store)
    assert not await store.finished_elsewhere(other_run.id, mine)


async def test_a_cancelled_job_shows_nothing_about_its_worker(store: Store) -> None:
    run = await started(store)
    await claimed(store, await worker(store))
    await cancelled(store, run.id)
    assert not await store.finished_elsewhere(run.id, await worker(store))
