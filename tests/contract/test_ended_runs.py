"""Runs that have ended: settled once, tried again by one caller, deleted with all that was theirs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest

from broadway_api.domain import Job, JobState, JobType, Reason, Run, RunState, StageLog
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


async def test_an_ended_run_is_reopened_as_live_as_it_was(store: Store, peer: Store) -> None:
    run, _ = await ended(store, at=later(9))

    assert await store.reopen_run(run.id, leaving=RunState.FINISHED, to=RunState.STUDENTS)

    assert await peer.run(run.id) == replace(run, state=RunState.STUDENTS, finished_at=None)
    assert await peer.unsettled_runs() == [run.id]
    assert not await peer.is_settled(run.id)


async def test_a_run_that_is_live_elsewhere_or_not_settled_is_not_reopened(store: Store) -> None:
    live, (unsettled, _) = await started(store), await ended(store, settled=False)
    settled, _ = await ended(store)

    for run, leaving in (
        (live, RunState.STUDENTS),
        (unsettled, RunState.FINISHED),
        (settled, RunState.FAILED),
        (replace(live, id=new_id()), RunState.FINISHED),
    ):
        assert not await store.reopen_run(run.id, leaving=leaving, to=RunState.POST_PROCESSING)

    assert [await state_of(store, run) for run in (live, unsettled, settled)] == [
        RunState.STUDENTS,
        RunState.FINISHED,
        RunState.FINISHED,
    ]


async def test_of_many_who_reopen_a_run_one_does(store: Store, peer: Store) -> None:
    for _ in range(5):
        run, _ = await ended(store)
        reopened = await asyncio.gather(
            *(one.reopen_run(run.id, leaving=RunState.FINISHED, to=RunState.STUDENTS) for one in (store, peer) * 4)
        )
        assert sorted(reopened) == [False] * 7 + [True]


async def test_jobs_that_are_tried_again_wait_with_their_past(store: Store, peer: Store) -> None:
    run, (job,) = await ended(store)
    before = await store.job(job.id)

    assert await store.retry_jobs(run.id, [job.id], 2) == 1

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
    )
    assert await store.queue_depth() == 0  # until the run is live again


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

    assert await store.retry_jobs(run.id, [first.id, second.id, fourth.id], 3) == 3

    assert await states(store, run) == [JobState.WAITING, JobState.WAITING, JobState.FAILED, JobState.WAITING]
    assert await store.job(third.id) == kept


async def test_retrying_again_changes_nothing(store: Store, peer: Store) -> None:
    run, jobs = await ended(store, 3)
    ids = [job.id for job in jobs]
    await store.retry_jobs(run.id, ids[:2], 3)
    before = await jobs_of(store, run)

    assert await peer.retry_jobs(run.id, ids[:2], 3) == 2
    assert await jobs_of(store, run) == before
    assert await peer.retry_jobs(run.id, ids, 3) == 3  # what was broken off half-way goes on


async def test_jobs_of_a_run_that_is_live_or_not_settled_are_left_alone(store: Store) -> None:
    run, (job,) = await ended(store, settled=False)
    before = await store.job(job.id)
    assert await store.retry_jobs(run.id, [job.id], 3) == 0
    assert await store.job(job.id) == before

    await store.settle_run(run.id)
    await store.reopen_run(run.id, leaving=RunState.FINISHED, to=RunState.STUDENTS)
    assert await store.retry_jobs(run.id, [job.id], 3) == 0
    assert await store.job(job.id) == before


async def test_only_jobs_of_the_run_are_tried_again(store: Store) -> None:
    run, _ = await ended(store)
    other, (job,) = await ended(store)

    assert await store.retry_jobs(run.id, [job.id, new_id()], 3) == 0

    assert await states(store, other) == [JobState.FAILED]


async def test_a_job_that_is_tried_again_has_its_attempts_anew(store: Store) -> None:
    run, (job,) = await ended(store)
    await store.retry_jobs(run.id, [job.id], 2)
    await store.reopen_run(run.id, leaving=RunState.FINISHED, to=RunState.STUDENTS)
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
    await store.retry_jobs(run.id, [accepted.id, lost.id], 3)
    await store.reopen_run(run.id, leaving=RunState.CANCELLED, to=RunState.STUDENTS)
    await store.open_phase(run.id, JobType.STUDENT, NOW)
    now_running = await claimed(store, await worker(store), 2)

    with pytest.raises(ClaimLost):
        await store.finish_job(claim_on(lost), success(), later(5))
    again = await store.finish_job(claim_on(accepted), success(), later(5))

    assert (again.repeated, again.job) == (True, now_running[0])
    assert [await store.job(job.id) for job in now_running] == now_running


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
    reopened, _ = await ended(store)
    await store.reopen_run(reopened.id, leaving=RunState.FINISHED, to=RunState.STUDENTS)

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
