"""Results: one is accepted for each claim, repeating it is harmless, a stale one changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broadway_api.domain import Attempt, Claim, FinishedJob, Job, JobState, JobType, Reason, Result, RunState, StageLog
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    ATTEMPT_LIMIT,
    LEASE,
    LEASE_OVER,
    NOW,
    cancelled,
    claim_on,
    claimed,
    failure,
    jobs_of,
    later,
    running,
    started,
    state_of,
    states,
    success,
    worker,
)

LOGS = (StageLog(stage=0, stdout="out", stderr="err"),)


def ended_attempt(job: Job, reason: Reason | None, *, reported: bool = True, seconds: float = 20) -> Attempt:
    """The record of the attempt that `job` was running."""
    assert job.worker_id is not None
    assert job.started_at is not None
    return Attempt(
        number=job.attempt,
        worker_id=job.worker_id,
        reason=reason,
        started_at=job.started_at,
        finished_at=later(seconds),
        reported=reported,
    )


# --- what is accepted -----------------------------------------------------------------------------------------------


async def test_a_success_ends_the_job(store: Store, peer: Store) -> None:
    job = await running(store)
    info = ({"exit_code": 0, "memory_peak_bytes": 2**70}, {"exit_code": 0, "a.b": {"$c": [0.1, None, True, "ü"]}})

    finished = await store.finish_job(claim_on(job), success(info=info), later(20))

    assert finished.job == replace(
        job,
        state=JobState.SUCCEEDED,
        lease_expires_at=None,
        finished_at=later(20),
        attempts=(ended_attempt(job, None),),
        info=info,
    )
    assert finished.phase_over
    assert await peer.job(job.id) == finished.job


@pytest.mark.parametrize("reason", [reason for reason in Reason if not reason.is_infrastructure])
async def test_a_students_fault_ends_the_job(store: Store, peer: Store, reason: Reason) -> None:
    job = await running(store)
    result = Result(success=False, reason=reason, info=({"exit_code": 1},))

    finished = await store.finish_job(claim_on(job), result, later(20))

    assert finished.job == replace(
        job,
        state=JobState.FAILED,
        reason=reason,
        lease_expires_at=None,
        finished_at=later(20),
        attempts=(ended_attempt(job, reason),),
        info=({"exit_code": 1},),
        cause=finished.job.cause,
        said=finished.job.said,
    )
    assert (finished.job.said == "exit code 1") is (reason is Reason.STAGE_FAILED)  # no other says anything of itself
    assert await peer.job(job.id) == finished.job


@pytest.mark.parametrize("reason", [Reason.IMAGE_UNAVAILABLE, Reason.RUNTIME_ERROR])
async def test_a_fault_of_the_fleet_is_tried_again(store: Store, peer: Store, reason: Reason) -> None:
    job = await running(store)

    finished = await store.finish_job(claim_on(job), failure(reason), later(20))

    assert (finished.job.state, finished.job.reason, finished.phase_over) == (JobState.QUEUED, None, False)
    assert (finished.job.worker_id, finished.job.started_at, finished.job.finished_at) == (None, None, None)
    assert (finished.job.attempt, finished.job.attempts) == (1, (ended_attempt(job, reason),))
    assert await peer.job(job.id) == finished.job
    assert await store.queue_depth() == 1


async def test_the_fleet_may_fail_as_often_as_the_attempt_limit_says(store: Store) -> None:
    await started(store)
    for attempt in range(1, ATTEMPT_LIMIT + 1):
        (job,) = await claimed(store, await worker(store))
        assert job.attempt == attempt
        finished = await store.finish_job(claim_on(job), failure(Reason.RUNTIME_ERROR), later(attempt))

    stored = await store.job(job.id)
    assert (stored.state, stored.reason) == (JobState.FAILED, Reason.RUNTIME_ERROR)
    assert [ended.number for ended in stored.attempts] == list(range(1, ATTEMPT_LIMIT + 1))
    assert finished.phase_over
    assert await store.queue_depth() == 0


async def test_a_worker_of_the_first_releases_is_fenced_by_its_id_alone(store: Store) -> None:
    job = await running(store)

    finished = await store.finish_job(replace(claim_on(job), attempt=None), success(), NOW)

    assert finished.job.state is JobState.SUCCEEDED
    assert (await store.job(job.id)).state is JobState.SUCCEEDED


async def test_a_worker_is_credited_with_the_jobs_that_it_ended(store: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)
    first, second, third = await claimed(store, worker_id, 3)

    await store.finish_job(claim_on(first), success(), NOW)
    await store.finish_job(claim_on(first), success(), NOW)
    await store.finish_job(claim_on(second), failure(), NOW)
    await store.finish_job(claim_on(third), failure(Reason.RUNTIME_ERROR), NOW)

    assert (await store.worker(worker_id)).jobs_processed == 2


# --- repeated results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt_known", [True, False])
async def test_a_repeated_result_gets_the_same_answer_and_changes_nothing(
    store: Store, peer: Store, attempt_known: bool
) -> None:
    job = await running(store)
    claim = claim_on(job) if attempt_known else replace(claim_on(job), attempt=None)
    first = await store.finish_job(claim, success(LOGS), later(20))

    again = await peer.finish_job(claim, failure(logs=[StageLog(stage=0, stdout="other", stderr="")]), later(30))

    assert again == replace(first, repeated=True)
    assert await store.job(job.id) == first.job
    assert await store.job_log(job.id) == list(LOGS)


async def test_a_result_repeated_after_the_job_went_on_changes_nothing(store: Store) -> None:
    await started(store)
    first_worker = await worker(store)
    (first,) = await claimed(store, first_worker)
    await store.finish_job(claim_on(first), failure(Reason.RUNTIME_ERROR, LOGS), NOW)
    (second,) = await claimed(store, await worker(store))

    again = await store.finish_job(claim_on(first), failure(Reason.RUNTIME_ERROR), later(30))

    assert (again.job, again.phase_over) == (second, False)
    assert await store.job(first.id) == second
    assert await store.job_log(first.id) == list(LOGS)


async def test_a_result_posted_twice_at_once_is_accepted_once(store: Store, peer: Store) -> None:
    run = await started(store, 10)
    worker_id = await worker(store)
    for job in await claimed(store, worker_id, 10):
        answers = await asyncio.gather(
            *(one.finish_job(claim_on(job), success(LOGS), later(20)) for one in (store, peer) * 2)
        )

        stored = await store.job(job.id)
        assert [answer.job for answer in answers] == [stored] * 4
        assert stored.attempts == (ended_attempt(job, None),)
        assert await store.job_log(job.id) == list(LOGS)
    assert (await store.worker(worker_id)).jobs_processed == 10
    assert await states(store, run) == [JobState.SUCCEEDED] * 10


# --- results that nobody may hand in --------------------------------------------------------------------------------


async def refused(store: Store, claim: Claim, job: Job) -> None:
    """The claim's result is refused, and the job with its log stays as it is."""
    log = await store.job_log(job.id)
    with pytest.raises(ClaimLost) as caught:
        await store.finish_job(claim, success([StageLog(stage=0, stdout="stale", stderr="stale")]), later(99))
    assert (caught.value.job_id, caught.value.worker_id) == (claim.job_id, claim.worker_id)
    assert await store.job(job.id) == job
    assert await store.job_log(job.id) == log


async def test_an_unknown_job_is_not_found(store: Store) -> None:
    with pytest.raises(JobNotFound):
        await store.finish_job(Claim(job_id=new_id(), worker_id=await worker(store), attempt=1), success(), NOW)


@pytest.mark.parametrize("attempt", [1, None])
async def test_a_job_that_was_never_handed_out_takes_no_result(store: Store, attempt: int | None) -> None:
    run = await started(store)
    (job,) = await jobs_of(store, run)
    await refused(store, Claim(job_id=job.id, worker_id=await worker(store), attempt=attempt), job)


@pytest.mark.parametrize("attempt", [1, None])
async def test_another_workers_job_takes_no_result(store: Store, attempt: int | None) -> None:
    job = await running(store)
    await refused(store, Claim(job_id=job.id, worker_id=await worker(store), attempt=attempt), job)


@pytest.mark.parametrize("attempt", [0, 2])
async def test_another_attempt_takes_no_result(store: Store, attempt: int) -> None:
    job = await running(store)
    await refused(store, replace(claim_on(job), attempt=attempt), job)


async def test_an_ended_job_takes_no_other_workers_result(store: Store) -> None:
    job = await running(store)
    finished = await store.finish_job(claim_on(job), success(LOGS), NOW)
    await refused(store, Claim(job_id=job.id, worker_id=await worker(store), attempt=1), finished.job)


async def test_a_cancelled_job_takes_no_result(store: Store) -> None:
    run = await started(store)
    await cancelled(store, run.id)
    (job,) = await jobs_of(store, run)
    await refused(store, Claim(job_id=job.id, worker_id=await worker(store), attempt=1), job)


@pytest.mark.parametrize("attempt_known", [True, False])
async def test_a_result_after_the_lease_ran_out_is_refused(store: Store, attempt_known: bool) -> None:
    job = await running(store)
    await store.expire_leases(LEASE_OVER, LEASE)
    claim = claim_on(job) if attempt_known else replace(claim_on(job), attempt=None)

    await refused(store, claim, await store.job(job.id))

    (taken,) = await claimed(store, await worker(store), now=later(90))
    await refused(store, claim, taken)


async def test_a_stale_result_is_refused_even_where_its_worker_has_the_job_again(store: Store) -> None:
    await started(store)
    worker_id = await worker(store)
    (first,) = await claimed(store, worker_id)
    await store.expire_leases(LEASE_OVER, LEASE)
    (second,) = await store.claim_jobs(worker_id, 1, later(90), LEASE)

    await refused(store, claim_on(first), second)


async def test_a_result_for_a_job_that_was_handed_back_is_refused(store: Store) -> None:
    job = await running(store)
    await store.deregister_worker(claim_on(job).worker_id, NOW)
    await refused(store, claim_on(job), await store.job(job.id))


# --- races ----------------------------------------------------------------------------------------------------------


async def test_a_result_in_time_outlives_the_lease(store: Store) -> None:
    """A lease that ran out unnoticed is no reason to throw away a result: it is still that worker's job."""
    job = await running(store)
    finished = await store.finish_job(claim_on(job), success(), LEASE_OVER)
    assert await store.expire_leases(LEASE_OVER, LEASE) == []
    assert await store.job(job.id) == finished.job


async def test_either_the_result_or_the_expiry_wins(store: Store, peer: Store) -> None:
    async def finish(job: Job) -> bool:
        try:
            await store.finish_job(claim_on(job), success(LOGS), LEASE_OVER)
        except ClaimLost:
            return False
        return True

    for _ in range(15):
        run = await started(store, 5)
        jobs = await claimed(store, await worker(store), 5)

        accepted, lost, more = await asyncio.gather(
            asyncio.gather(*map(finish, jobs)),
            peer.expire_leases(LEASE_OVER, LEASE),
            peer.expire_leases(LEASE_OVER, LEASE),
        )

        taken_back = [one.job_id for one in lost + more]
        assert sorted(taken_back) == sorted(job.id for job, won in zip(jobs, accepted, strict=True) if not won)
        for job, won in zip(jobs, accepted, strict=True):
            stored = await store.job(job.id)
            assert stored.state is (JobState.SUCCEEDED if won else JobState.QUEUED)
            assert [ended.reported for ended in stored.attempts] == [won]
            assert await store.job_log(job.id) == (list(LOGS) if won else [])
        await cancelled(store, run.id)  # what was taken back is not for the next round


async def test_the_last_results_of_a_phase_move_the_run_on_exactly_once(store: Store, peer: Store) -> None:
    for _ in range(10):
        run = await started(store, 2, post=True)
        jobs = await claimed(store, await worker(store), 2)

        async def report(one: Store, job: Job, run_id: str = run.id) -> tuple[bool, bool]:
            finished = await one.finish_job(claim_on(job), success(), NOW)
            moved = finished.phase_over and await one.advance_run(
                run_id, leaving=RunState.STUDENTS, to=RunState.POST_PROCESSING, now=NOW
            )
            return finished.phase_over, moved

        outcomes = await asyncio.gather(report(store, jobs[0]), report(peer, jobs[1]))

        assert any(over for over, _ in outcomes), "nobody saw that the phase was over"
        assert sum(moved for _, moved in outcomes) == 1
        assert await state_of(store, run) is RunState.POST_PROCESSING
        assert await store.open_phase(run.id, JobType.POST_PROCESSING, NOW) == 1
        (last,) = await claimed(store, await worker(store))
        await store.finish_job(claim_on(last), success(), NOW)


async def test_a_phase_is_over_with_its_last_job(store: Store) -> None:
    await started(store, 3, post=True)
    jobs = await claimed(store, await worker(store), 3)
    over = [(await store.finish_job(claim_on(job), success(), NOW)).phase_over for job in jobs]
    assert over == [False, False, True]


async def test_several_results_are_accepted_or_refused_each_for_itself(store: Store, peer: Store) -> None:
    run = await started(store, 5, post=True)
    first, second, third, lost, last = await claimed(store, await worker(store), 5)
    await peer.finish_job(claim_on(first), failure(), NOW)
    stale = replace(claim_on(lost), attempt=7)
    unknown = Claim(job_id=new_id(), worker_id=stale.worker_id, attempt=1)
    results = [
        (claim_on(first), failure()),
        (stale, success()),
        (claim_on(second), success(LOGS)),
        (unknown, success()),
        (claim_on(third), failure(Reason.RUNTIME_ERROR)),
        (claim_on(last), failure(Reason.TIMEOUT)),
    ]

    answers = await store.finish_jobs(results, later(20))

    assert [
        (type(answer), answer.job_id)
        if isinstance(answer, ClaimLost | JobNotFound)
        else (answer.job.id, answer.job.state, answer.repeated)
        for answer in answers
    ] == [
        (first.id, JobState.FAILED, True),
        (ClaimLost, lost.id),
        (second.id, JobState.SUCCEEDED, False),
        (JobNotFound, unknown.job_id),
        (third.id, JobState.QUEUED, False),
        (last.id, JobState.FAILED, False),
    ]
    assert (await peer.job(lost.id)).state is JobState.RUNNING
    assert await peer.job_log(second.id) == list(LOGS)
    again = await peer.finish_jobs(results, later(30))
    assert [getattr(answer, "repeated", None) for answer in again] == [True, None, True, None, True, True]
    assert await state_of(store, run) is RunState.STUDENTS


async def test_a_claim_that_stands_twice_among_several_results_is_ended_once(store: Store) -> None:
    await started(store)
    (job,) = await claimed(store, await worker(store))
    answers = await store.finish_jobs([(claim_on(job), success()), (claim_on(job), failure())], NOW)
    assert sorted(answer.repeated for answer in answers if isinstance(answer, FinishedJob)) == [False, True]
    assert len((await store.job(job.id)).attempts) == 1
    assert await store.finish_jobs([], NOW) == []
