"""What people look at: numbers, lists that are searched and sorted, and failures by cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from broadway_api.domain import JobQuery, JobSort, JobState, Reason, Result, Run, StageLog
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import cancelled, claim_on, claimed, created, later, started, success, worker

ROSTER = [{"NET_ID": name} for name in ("amy", "Bob_1", "carol%", "dörte", 'eve"', "frank")]


def broken(said: str, reason: Reason = Reason.STAGE_FAILED) -> Result:
    """A failure of a stage that printed this last."""
    info = {"exit_code": 1, "reason": reason.value, "message": said}
    return Result(success=False, reason=reason, info=(info,), logs=(StageLog(stage=0, stdout="", stderr=said),))


async def graded(store: Store) -> Run:
    """A run of six: two failed alike, one otherwise, two have scores, one runs."""
    run = await started(store, ROSTER)
    worker_id = await worker(store)
    jobs = await claimed(store, worker_id, 6)
    results = [
        broken("ValueError: 1 of amy"),
        success(results={"score": 7, "max_score": 10, "tests": []}),
        broken("ValueError: 22 of carol%"),
        broken("took longer than 30 s", Reason.TIMEOUT),
        success(results={"score": 9.5, "max_score": 10, "tests": []}),
    ]
    for seconds, (job, result) in enumerate(zip(jobs, results, strict=False), start=1):
        await store.finish_job(claim_on(job), result, later(seconds))
    return run


async def test_jobs_are_counted_for_several_runs_at_once(store: Store, peer: Store) -> None:
    run, other = await graded(store), await created(store, 3)
    assert await peer.run_counts([run.id, other.id, new_id()]) == {
        run.id: {JobState.FAILED: 3, JobState.SUCCEEDED: 2, JobState.RUNNING: 1},
        other.id: {JobState.WAITING: 3},
    }


async def test_failures_are_told_apart_by_reason_and_cause(store: Store, peer: Store) -> None:
    run = await graded(store)
    await graded(store)

    causes = await peer.causes(run.id, 10)

    assert [(cause.reason, cause.text, cause.jobs, cause.example.seq) for cause in causes] == [
        (Reason.STAGE_FAILED, "ValueError: # of <NET_ID>", 2, 1),
        (Reason.TIMEOUT, "took longer than # s", 1, 4),
    ]
    assert [cause.jobs for cause in await peer.causes(run.id, 1)] == [2]
    assert await peer.causes(new_id(), 10) == []


async def test_a_job_that_is_tried_again_has_no_cause(store: Store) -> None:
    run = await graded(store)
    (first, *_) = await store.run_jobs(run.id, limit=1)
    assert (await store.job(first.id)).cause == "ValueError: # of <NET_ID>"
    await cancelled(store, run.id)
    await store.settle_run(run.id)
    await store.retry_jobs(run.id, [first.id], 3, leaving=run.state.CANCELLED, to=run.state)
    assert (await store.job(first.id)).cause == ""
    assert sum(cause.jobs for cause in await store.causes(run.id, 10)) == 2


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (JobQuery(), [1, 2, 3, 4, 5, 6]),
        (JobQuery(descending=True), [6, 5, 4, 3, 2, 1]),
        (JobQuery(text="BOB"), [2]),
        (JobQuery(text="b_1"), [2]),
        (JobQuery(text="o%1"), []),
        (JobQuery(text="%"), [3]),
        (JobQuery(text="dört"), [4]),
        (JobQuery(text='e"'), [5]),
        (JobQuery(text=".*"), []),
        (JobQuery(states=(JobState.FAILED, JobState.RUNNING)), [1, 3, 4, 6]),
        (JobQuery(reason=Reason.TIMEOUT), [4]),
        (JobQuery(reason=Reason.STAGE_FAILED, cause="ValueError: # of <NET_ID>"), [1, 3]),
        (JobQuery(reason=Reason.STAGE_FAILED, cause=""), []),
        (JobQuery(sort=JobSort.SCORE), [2, 5, 1, 3, 4, 6]),
        (JobQuery(sort=JobSort.SCORE, descending=True), [5, 2, 6, 4, 3, 1]),
        (JobQuery(sort=JobSort.DURATION, descending=True), [5, 4, 3, 2, 1, 6]),
        (JobQuery(sort=JobSort.FINISHED), [1, 2, 3, 4, 5, 6]),
        (JobQuery(sort=JobSort.STATE), [1, 3, 4, 6, 2, 5]),
        (JobQuery(sort=JobSort.ATTEMPT), [1, 2, 3, 4, 5, 6]),
    ],
)
async def test_jobs_are_searched_and_sorted(store: Store, query: JobQuery, found: Sequence[int]) -> None:
    run = await graded(store)
    await created(store, ROSTER)
    jobs, total = await store.find_jobs(run.id, query, limit=10, offset=0)
    assert [job.seq for job in jobs] == found
    assert total == len(found)
    second, total = await store.find_jobs(run.id, query, limit=2, offset=1)
    assert [job.seq for job in second] == found[1:3]
    assert total == len(found)


async def test_a_job_is_found_by_its_id(store: Store) -> None:
    run = await graded(store)
    (job,) = await store.run_jobs(run.id, limit=1)
    jobs, _ = await store.find_jobs(run.id, JobQuery(text=job.id), limit=10, offset=0)
    assert jobs == [replace(job, cause="ValueError: # of <NET_ID>", said="ValueError: 1 of amy")]
    assert await store.find_jobs(new_id(), JobQuery(), limit=10, offset=0) == ([], 0)


async def test_students_that_ended_are_measured(store: Store, peer: Store) -> None:
    run = await graded(store)
    measures = await peer.measures(run.id)
    assert sorted(measure.milliseconds or 0 for measure in measures) == [1_000, 2_000, 3_000, 4_000, 5_000]
    assert sorted(measure.score for measure in measures if measure.score is not None) == [7, 9.5]
