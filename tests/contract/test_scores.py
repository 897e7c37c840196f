"""Results of trusted stages: accepted with the outcome or not at all, gone when the job is tried again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from broadway_api.domain import JobState, JobType, Reason, RunState
from broadway_api.errors import ClaimLost
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    ATTEMPT_LIMIT,
    LEASE,
    LEASE_OVER,
    NOW,
    claim_on,
    claimed,
    failure,
    jobs_of,
    later,
    running,
    started,
    success,
    worker,
)


def results(score: float, max_score: float | None = 10, **more: Any) -> dict[str, Any]:
    return {"score": score, "max_score": max_score, "tests": [{"score": score, "max_score": max_score}], **more}


@pytest.mark.parametrize(("score", "max_score"), [(7, 10), (7.0, None), (-0.1, 1e13), (0, 0.0)])
async def test_scores_are_kept_exactly_and_listed_without_the_results(
    store: Store, peer: Store, score: float, max_score: float | None
) -> None:
    given = results(score, max_score, extra_data={"a.b": {"$c": [2**70, 0.1, "\0ü"]}}, output="é" * 100_000)
    job = await running(store)

    finished = (await store.finish_job(claim_on(job), success(results=given), later(1))).job

    for shown in (finished, await peer.job(job.id)):
        assert json.dumps([shown.results, shown.score, shown.max_score]) == json.dumps([given, score, max_score])
    (listed,) = await peer.run_jobs(job.run_id, limit=10)
    assert json.dumps([listed.score, listed.max_score]) == json.dumps([score, max_score])
    assert listed.results is None


async def test_a_failed_job_keeps_its_results(store: Store, peer: Store) -> None:
    job = await running(store)
    await store.finish_job(claim_on(job), replace(failure(Reason.TIMEOUT), results=results(3)), NOW)
    ended = await peer.job(job.id)
    assert (ended.state, ended.score, ended.results) == (JobState.FAILED, 3, results(3))


async def test_a_job_without_results_has_no_score(store: Store, peer: Store) -> None:
    job = await running(store)
    await store.finish_job(claim_on(job), success(), NOW)
    ended = await peer.job(job.id)
    assert (ended.score, ended.max_score, ended.results) == (None, None, None)


async def test_what_the_fleet_failed_brings_no_score(store: Store, peer: Store) -> None:
    job = await running(store, attempt_limit=ATTEMPT_LIMIT)
    await store.finish_job(claim_on(job), replace(failure(Reason.RUNTIME_ERROR), results=results(3)), NOW)
    queued = await peer.job(job.id)
    assert (queued.state, queued.score, queued.results) == (JobState.QUEUED, None, None)


async def test_a_stale_or_repeated_result_changes_no_score(store: Store, peer: Store) -> None:
    first = await running(store)
    await store.expire_leases(LEASE_OVER, LEASE)
    (second,) = await claimed(store, await worker(store, seen=LEASE_OVER), now=LEASE_OVER)

    with pytest.raises(ClaimLost):
        await store.finish_job(claim_on(first), success(results=results(10)), LEASE_OVER)
    await store.finish_job(claim_on(second), success(results=results(4)), LEASE_OVER)
    await store.finish_job(claim_on(second), success(results=results(10)), LEASE_OVER)

    assert (await peer.job(first.id)).score == 4


async def test_a_job_that_is_tried_again_has_no_score_until_it_has_ended(store: Store, peer: Store) -> None:
    run = await started(store)
    (job,) = await claimed(store, await worker(store))
    await store.finish_job(claim_on(job), success(results=results(4)), NOW)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.FINISHED, now=NOW)
    await store.settle_run(run.id)

    assert await store.retry_jobs(run.id, [job.id], 1, leaving=RunState.FINISHED, to=RunState.STUDENTS)

    for shown in (await peer.job(job.id), *await jobs_of(peer, run)):
        assert (shown.state, shown.score, shown.max_score, shown.results) == (JobState.WAITING, None, None, None)
    await store.open_phase(run.id, JobType.STUDENT, NOW)
    (again,) = await claimed(store, await worker(store))
    await store.finish_job(claim_on(again), success(results=results(9.5)), NOW)
    assert (await peer.job(job.id)).score == 9.5
