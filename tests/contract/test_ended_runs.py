"""Runs that have ended: settled once, tried again by one caller, deleted with all that was theirs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest

from broadway_api.domain import Attempt, Job, JobState, JobType, Reason, Run, RunState, StageLog
from broadway_api.errors import ClaimLost, JobNotFound, RunNotFound
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    LEASE,
    NOW,
    claim_on,
    claimed,
    created,
    failure,
    jobs_of,
    later,
    started,
    state_of,
    states,
    success,
    worker,
)

LOG = [StageLog(stage=0, stdout="out", stderr="")]


async def ended(
    store: Store, students: int = 1, *, settled: bool = True, at: datetime = NOW, post: bool = False
) -> tuple[Run, list[Job]]:
    """A run whose students all failed, each with a log, and its jobs as they were claimed."""
    run = await started(store, students, post=post)
    jobs = await claimed(store, await worker(store), students)
    for job in jobs:
        await store.finish_job(claim_on(job), replace(failure(logs=LOG), info=({"exit_code": 1},)), NOW)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.FINISHED, now=at)
    if settled:
        await store.settle_run(run.id)
    return run, jobs


# --- settling -------------------------------------------------------------------------------------------------------


async def test_only_an_ended_run_is_settled(store: Store, peer: Store) -> None:
    run = await started(store)

    await store.settle_run(run.id)

    assert not await peer.is_settled(run.id)
    assert await peer.unsettled_runs() == [run.id]
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.FAILED, now=NOW)
    assert not await peer.is_settled(run.id)
    await store.settle_run(run.id)
    assert await peer.is_settled(run.id)
    assert not await store.is_settled(new_id())


async def test_a_run_that_is_cancelled_before_its_start_is_looked_after(store: Store, peer: Store) -> None:
    """Whoever cancelled it may die before its jobs are ended."""
    run = await created(store)
    await store.advance_run(run.id, leaving=RunState.READY, to=RunState.CANCELLED, now=NOW)
    assert await peer.unsettled_runs() == [run.id]


# --- trying again ---------------------------------------------------------------------------------------------------


async def retried(store: Store, run: Run, *jobs: Job, attempts: int = 3, leaving: RunState = RunState.FINISHED) -> bool:
    """Whether these students' jobs are tried again now."""
    ids = [job.id for job in jobs]
    return await store.retry_jobs(run.id, ids, attempts, leaving=leaving, to=RunState.STUDENTS)


async def test_a_run_that_is_retried_is_as_live_as_it_was(store: Store, peer: Store) -> None:
    run, jobs = await ended(store, at=later(9))

    assert await retried(store, run, *jobs)

    assert await peer.run(run.id) == replace(run, state=RunState.STUDENTS, finished_at=None)
    assert await peer.unsettled_runs() == [run.id]
    assert not await peer.is_settled(run.id)


async def test_a_run_that_is_live_elsewhere_or_not_settled_is_not_retried(store: Store) -> None:
    unsettled, unsettled_jobs = await ended(store, settled=False)
    settled, settled_jobs = await ended(store)
    live = await started(store)

    for run, jobs, leaving in (
        (live, await jobs_of(store, live), RunState.STUDENTS),
        (unsettled, unsettled_jobs, RunState.FINISHED),
        (settled, settled_jobs, RunState.FAILED),
        (replace(live, id=new_id()), settled_jobs, RunState.FINISHED),
    ):
        assert not await retried(store, run, *jobs, leaving=leaving)

    assert [await state_of(store, run) for run in (live, unsettled, settled)] == [
        RunState.STUDENTS,
        RunState.FINISHED,
        RunState.FINISHED,
    ]
    assert [await states(store, run) for run in (unsettled, settled)] == [[JobState.FAILED]] * 2


async def test_of_many_who_retry_different_jobs_one_does(store: Store, peer: Store) -> None:
    for _ in range(5):
        run, jobs = await ended(store, 8)
        done = await asyncio.gather(
            *(
                (store, peer)[n % 2].retry_jobs(run.id, [job.id], 3, leaving=RunState.FINISHED, to=RunState.STUDENTS)
                for n, job in enumerate(jobs)
            )
        )
        assert sorted(done) == [False] * 7 + [True]
        expected = [JobState.WAITING if did else JobState.FAILED for did in done]
        assert await states(store, run) == expected


async def test_jobs_that_are_tried_again_wait_with_their_past(store: Store, peer: Store) -> None:
    run, (job,) = await ended(store)
    before = await store.job(job.id)

    assert await retried(store, run, job, attempts=2)

    assert await peer.job(job.id) == replace(
        before,
        state=JobState.WAITING,
        reason=None,
        attempt_limit=before.attempt + 2,
        worker_id=None,
        queued_at=None,
        started_at=None,
        finished_at=None,
        info=(),
        cause="",
        said="",
    )
    assert await store.queue_depth() == 0  # until the phase is opened


async def test_every_outcome_can_be_tried_again_and_others_stay(store: Store) -> None:
    run = await started(store, 4)
    first, second, third = await claimed(store, await worker(store), 3)
    await store.finish_job(claim_on(first), success(), NOW)
    await store.finish_job(claim_on(second), failure(), NOW)
    await store.finish_job(claim_on(third), failure(), NOW)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.CANCELLED, now=NOW)
    await store.cancel_jobs(run.id, NOW)
    await store.settle_run(run.id)
    fourth = (await jobs_of(store, run))[3]
    kept = await store.job(third.id)

    assert await retried(store, run, first, second, fourth, leaving=RunState.CANCELLED)

    assert await states(store, run) == [JobState.WAITING, JobState.WAITING, JobState.FAILED, JobState.WAITING]
    assert await store.job(third.id) == kept


async def test_a_run_can_be_retried_time_and_again(store: Store, peer: Store) -> None:
    run, (first, second) = await ended(store, 2)
    for job, one in ((first, store), (second, peer), (first, peer)):
        assert await retried(one, run, job)
        await one.open_phase(run.id, JobType.STUDENT, NOW)
        (again,) = await claimed(one, await worker(one))
        assert again.id == job.id
        await one.finish_job(claim_on(again), failure(), NOW)
        await one.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.FINISHED, now=NOW)
        await one.settle_run(run.id)
    assert [len((await store.job(job.id)).attempts) for job in (first, second)] == [3, 2]


async def test_only_jobs_of_the_run_are_tried_again(store: Store) -> None:
    run, _ = await ended(store)
    other, (job,) = await ended(store)

    assert await retried(store, run, job, replace(job, id=new_id()))

    assert await states(store, other) == [JobState.FAILED]
    assert await states(store, run) == [JobState.FAILED]


async def test_a_job_that_is_tried_again_has_its_attempts_anew(store: Store) -> None:
    run, (job,) = await ended(store)
    assert await retried(store, run, job, attempts=2)
    assert await store.open_phase(run.id, JobType.STUDENT, later(20)) == 1

    for attempt, state in ((2, JobState.QUEUED), (3, JobState.FAILED)):
        (again,) = await claimed(store, await worker(store))
        assert (again.id, again.attempt) == (job.id, attempt)
        finished = await store.finish_job(claim_on(again), failure(Reason.RUNTIME_ERROR), later(30))
        assert finished.job.state is state

    assert [one.number for one in (await store.job(job.id)).attempts] == [1, 2, 3]


async def test_a_result_of_before_changes_nothing_after(store: Store) -> None:
    """Neither that of a claim that was lost, nor a repetition of one that was accepted."""
    run = await started(store, 2)
    accepted, lost = await claimed(store, await worker(store), 2)
    await store.finish_job(claim_on(accepted), failure(logs=LOG), NOW)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.CANCELLED, now=NOW)
    await store.cancel_jobs(run.id, NOW)
    await store.settle_run(run.id)
    assert await retried(store, run, accepted, lost, leaving=RunState.CANCELLED)
    await store.open_phase(run.id, JobType.STUDENT, NOW)
    now_running = await claimed(store, await worker(store), 2)

    with pytest.raises(ClaimLost):
        await store.finish_job(claim_on(lost), success(), later(5))
    again = await store.finish_job(claim_on(accepted), success(), later(5))

    assert (again.repeated, again.job) == (True, now_running[0])
    assert [await store.job(job.id) for job in now_running] == now_running


async def test_an_attempt_that_a_cancellation_cut_short_stays_in_the_jobs_past(store: Store, peer: Store) -> None:
    run = await started(store, 2)
    worker_id = await worker(store)
    (job,) = await claimed(store, worker_id)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.CANCELLED, now=NOW)
    assert await peer.cancel_jobs(run.id, later(5)) == 2

    cancelled, never_ran = [await store.job(one.id) for one in await jobs_of(store, run)]

    assert [one.state for one in (cancelled, never_ran)] == [JobState.CANCELLED] * 2
    assert cancelled.attempts == (
        Attempt(
            number=1,
            worker_id=worker_id,
            reason=Reason.CANCELLED,
            started_at=NOW,
            finished_at=later(5),
            reported=False,
        ),
    )
    assert never_ran.attempts == ()
    with pytest.raises(ClaimLost):
        await store.finish_job(claim_on(job), success(), later(6))
    await store.settle_run(run.id)
    assert await retried(store, run, job, leaving=RunState.CANCELLED)
    assert (await peer.job(job.id)).attempts == cancelled.attempts


# --- deleting -------------------------------------------------------------------------------------------------------


async def test_a_deleted_run_leaves_nothing(store: Store, peer: Store) -> None:
    run, jobs = await ended(store, 3, at=later(10))
    kept, (kept_job,) = await ended(store, at=later(30))

    assert await store.delete_runs(later(20), 10) == [run.id]

    with pytest.raises(RunNotFound):
        await peer.run(run.id)
    assert await peer.run_jobs(run.id, limit=10) == []
    for job in jobs:
        with pytest.raises(JobNotFound):
            await peer.job(job.id)
        with pytest.raises(JobNotFound):
            await peer.job_log(job.id)
    assert [one.id for one in await peer.runs(limit=10)] == [kept.id]
    assert await peer.job_log(kept_job.id) == LOG


async def test_only_settled_runs_that_ended_before_are_deleted(store: Store) -> None:
    ready, live = await created(store), await started(store)
    unsettled, _ = await ended(store, settled=False)
    young, _ = await ended(store, at=later(20))
    reopened, jobs = await ended(store)
    assert await retried(store, reopened, *jobs)

    assert await store.delete_runs(later(20), 10) == []

    assert {run.id for run in await store.runs(limit=10)} == {
        run.id for run in (ready, live, unsettled, young, reopened)
    }


async def test_runs_are_deleted_a_few_at_a_time_the_longest_ended_first(store: Store) -> None:
    third, first, second = [(await ended(store, at=later(seconds)))[0].id for seconds in (3, 1, 2)]
    assert await store.delete_runs(later(20), 2) == [first, second]
    assert await store.delete_runs(later(20), 2) == [third]
    assert await store.delete_runs(later(20), 2) == []


async def test_two_who_delete_at_once_do_no_harm(store: Store, peer: Store) -> None:
    runs = {(await ended(store, 2))[0].id for _ in range(6)}
    deleted = await asyncio.gather(*(one.delete_runs(later(20), 10) for one in (store, peer) * 2))
    assert {run_id for ids in deleted for run_id in ids} == runs
    assert await store.runs(limit=10) == []


# --- what a broken-off creation left --------------------------------------------------------------------------------


async def test_whole_runs_are_never_taken_for_half_created(store: Store) -> None:
    runs = [await created(store, 2), await started(store, 2)]
    assert await store.forget_half_created(datetime.max.replace(tzinfo=NOW.tzinfo, year=2100)) == 0
    for run in runs:
        assert len(await jobs_of(store, run)) == 2
    assert len(await store.claim_jobs(await worker(store), 5, NOW, LEASE)) == 2
