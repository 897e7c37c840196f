"""Reads: rosters exactly as handed in, jobs page by page, runs in numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broadway_api.domain import JobState, JobType, Reason
from broadway_api.errors import JobNotFound, RunNotFound
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    LEASE,
    LEASE_OVER,
    NOW,
    cancelled,
    claim_on,
    claimed,
    created,
    failure,
    jobs_of,
    new_run,
    started,
    success,
    worker,
)

# --- rosters --------------------------------------------------------------------------------------------------------

ROSTER: list[dict[str, Any]] = [
    {"NET_ID": "zoë", "SCORE": 0.1, "LATE": False, "BIG": 2**64 + 1, "NEGATIVE": -(2**70), "ONE": 1, "TRUE": True},
    {"Z": "last letter first", "A": "", "M": "$HOME", "$where": "x", "a.b": "dotted"},
    {"名前": "学生 🎓", "FLOAT": 1e300, "WHOLE": 1.0, "TINY": 5e-324, "ZERO": 0, "NUL": "a\x00b"},
    {},
]


async def test_a_roster_is_kept_exactly(store: Store, peer: Store) -> None:
    """Compared as JSON text: 1, 1.0 and true are equal in Python, and so are dictionaries in another order."""
    run = await created(store, ROSTER, pre=True, post=True)
    assert json.dumps(await peer.roster(run.id)) == json.dumps(ROSTER)


async def test_each_student_job_has_its_entry(store: Store) -> None:
    run = await started(store, ROSTER)
    stored = [(await store.job(job.id)).student for job in await jobs_of(store, run)]
    handed_out = [job.student for job in await claimed(store, await worker(store), len(ROSTER))]
    assert json.dumps(stored) == json.dumps(handed_out) == json.dumps(ROSTER)


async def test_a_roster_of_ten_thousand_is_kept_in_order(store: Store) -> None:
    run = await created(store, 10_000)
    assert await store.roster(run.id) == [{"NET_ID": f"student{n}"} for n in range(10_000)]


async def test_an_unknown_run_has_no_roster(store: Store) -> None:
    await created(store)
    assert await store.roster(new_id()) == []


# --- jobs -----------------------------------------------------------------------------------------------------------


async def test_an_unknown_job_is_not_found(store: Store) -> None:
    unknown = new_id()
    with pytest.raises(JobNotFound) as caught:
        await store.job(unknown)
    assert caught.value.job_id == unknown


async def test_jobs_come_in_the_order_of_the_roster_page_by_page(store: Store) -> None:
    run, jobs = new_run(5, pre=True, post=True)
    await store.create_run(run, jobs)
    await created(store, 3)

    pages = [await store.run_jobs(run.id, limit=3)]
    while pages[-1]:
        pages.append(await store.run_jobs(run.id, limit=3, after=pages[-1][-1].seq))

    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert [job for page in pages for job in page] == jobs
    assert [job.type for job in jobs] == [JobType.PRE_PROCESSING, *[JobType.STUDENT] * 5, JobType.POST_PROCESSING]


async def test_jobs_are_listed_by_state(store: Store) -> None:
    run = await started(store, 4)
    worker_id = await worker(store)
    first, _ = await claimed(store, worker_id, 2)
    await store.finish_job(claim_on(first), success(), NOW)

    async def listed(*states: JobState, **page: int) -> list[int]:
        return [job.seq for job in await store.run_jobs(run.id, states=states, limit=page.pop("limit", 10), **page)]

    assert await listed(JobState.SUCCEEDED) == [1]
    assert await listed(JobState.QUEUED) == [3, 4]
    assert await listed(JobState.RUNNING, JobState.QUEUED) == [2, 3, 4]
    assert await listed(JobState.RUNNING, JobState.QUEUED, limit=1, after=2) == [3]
    assert await listed(JobState.CANCELLED) == []


async def test_an_unknown_run_has_no_jobs(store: Store) -> None:
    await created(store)
    assert await store.run_jobs(new_id(), limit=10) == []


# --- runs in numbers ------------------------------------------------------------------------------------------------


async def test_a_summary_counts_jobs_by_state_and_reason(store: Store, peer: Store) -> None:
    run = await started(store, 8, post=True)
    await started(store, 3)
    jobs = await claimed(store, await worker(store), 6)
    results = [success(), success(), failure(), failure(Reason.TIMEOUT), failure(Reason.TIMEOUT)]
    for job, result in zip(jobs, results, strict=False):
        await store.finish_job(claim_on(job), result, NOW)

    summary = await peer.run_summary(run.id)

    assert summary.run == run
    assert summary.counts == {
        JobState.WAITING: 1,
        JobState.QUEUED: 2,
        JobState.RUNNING: 1,
        JobState.SUCCEEDED: 2,
        JobState.FAILED: 3,
        JobState.CANCELLED: 0,
    }
    assert summary.reasons == {Reason.STAGE_FAILED: 1, Reason.TIMEOUT: 2}


async def test_a_summary_counts_the_cancelled_and_the_lost(store: Store) -> None:
    run = await started(store, 3, attempt_limit=1)
    await claimed(store, await worker(store))
    await store.expire_leases(LEASE_OVER, LEASE)
    await cancelled(store, run.id)

    summary = await store.run_summary(run.id)

    assert (summary.counts[JobState.FAILED], summary.counts[JobState.CANCELLED]) == (1, 2)
    assert summary.reasons == {Reason.WORKER_LOST: 1, Reason.CANCELLED: 2}


async def test_a_summary_shows_the_jobs_around_the_roster(store: Store) -> None:
    run = await started(store, 2, pre=True, post=True)
    (job,) = await claimed(store, await worker(store))
    await store.finish_job(claim_on(job), failure(Reason.TIMEOUT), NOW)

    summary = await store.run_summary(run.id)

    assert summary.pre_processing_job is not None
    assert summary.post_processing_job is not None
    assert (summary.pre_processing_job.id, summary.pre_processing_job.reason) == (job.id, Reason.TIMEOUT)
    assert summary.post_processing_job.state is JobState.WAITING


async def test_a_summary_of_students_alone_has_no_other_jobs(store: Store) -> None:
    summary = await store.run_summary((await created(store)).id)
    assert (summary.pre_processing_job, summary.post_processing_job) == (None, None)


async def test_an_unknown_run_has_no_summary(store: Store) -> None:
    with pytest.raises(RunNotFound):
        await store.run_summary(new_id())
