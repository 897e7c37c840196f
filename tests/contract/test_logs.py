"""Logs: kept apart from jobs, exactly, however large; those of a refused result are never seen."""

from __future__ import annotations

import pytest

from broadway_api.domain import Reason, StageLog
from broadway_api.errors import JobNotFound
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    LEASE,
    LEASE_OVER,
    claim_on,
    claimed,
    failure,
    later,
    running,
    started,
    success,
    worker,
)

MEGABYTE = 1024 * 1024


async def test_a_log_can_be_read_by_everybody_whole_or_by_stage(store: Store, peer: Store) -> None:
    job = await running(store)
    logs = [
        StageLog(stage=0, stdout="compiling\n", stderr="warning: grüße ☃ 🎓\n"),
        StageLog(stage=1, stdout="tab\t nul\x00 bell\a crlf\r\n", stderr=""),
    ]
    await store.finish_job(claim_on(job), success(logs), later(20))

    assert await peer.job_log(job.id) == logs
    assert await peer.job_log(job.id, 1) == [logs[1]]
    assert await peer.job_log(job.id, 2) == []


async def test_a_stage_that_printed_nothing_has_an_empty_log(store: Store) -> None:
    job = await running(store)
    silent = [StageLog(stage=0, stdout="", stderr=""), StageLog(stage=2, stdout="", stderr="only")]
    await store.finish_job(claim_on(job), success(silent), later(20))
    assert await store.job_log(job.id) == silent


async def test_logs_come_in_the_order_of_the_stages(store: Store) -> None:
    job = await running(store)
    logs = [StageLog(stage=stage, stdout=f"{stage}", stderr="") for stage in (10, 2, 0)]
    await store.finish_job(claim_on(job), success(logs), later(20))
    assert await store.job_log(job.id) == logs[::-1]


async def test_a_large_log_is_kept_whole(store: Store, peer: Store) -> None:
    """Streams over 16 MB, the most that a document of MongoDB holds, of text that a cut between bytes would break."""
    job = await running(store)
    logs = [
        StageLog(stage=0, stdout="a€" * (5 * MEGABYTE + 1), stderr="é" * (3 * MEGABYTE)),
        StageLog(stage=1, stdout="", stderr="🎓" * (2 * MEGABYTE)),
    ]

    await store.finish_job(claim_on(job), success(logs), later(20))

    kept = await peer.job_log(job.id)
    # Not `kept == logs`: a difference of megabytes takes pytest minutes to explain.
    assert [(log.stage, len(log.stdout), len(log.stderr)) for log in kept] == [
        (log.stage, len(log.stdout), len(log.stderr)) for log in logs
    ]
    same = kept == logs
    assert same


async def test_a_job_without_a_result_has_no_log(store: Store) -> None:
    job = await running(store)
    assert await store.job_log(job.id) == []
    await store.expire_leases(LEASE_OVER, LEASE)
    assert await store.job_log(job.id) == []


async def test_an_unknown_job_has_no_log(store: Store) -> None:
    with pytest.raises(JobNotFound):
        await store.job_log(new_id())


async def test_the_log_is_that_of_the_last_reported_attempt(store: Store) -> None:
    await started(store)
    (first,) = await claimed(store, await worker(store))
    earlier = [StageLog(stage=0, stdout="first", stderr=""), StageLog(stage=1, stdout="first", stderr="")]
    await store.finish_job(claim_on(first), failure(Reason.RUNTIME_ERROR, earlier), later(20))

    (second,) = await claimed(store, await worker(store))
    assert await store.job_log(first.id) == earlier
    await store.expire_leases(LEASE_OVER, LEASE)
    assert await store.job_log(first.id) == earlier
    (third,) = await claimed(store, await worker(store))
    last = [StageLog(stage=0, stdout="third", stderr="")]
    await store.finish_job(claim_on(third), success(last), later(90))

    assert (second.attempt, third.attempt) == (2, 3)
    assert await store.job_log(first.id) == last


async def test_a_last_attempt_without_logs_hides_those_before_it(store: Store) -> None:
    await started(store)
    (first,) = await claimed(store, await worker(store))
    earlier = [StageLog(stage=0, stdout="first", stderr="")]
    await store.finish_job(claim_on(first), failure(Reason.RUNTIME_ERROR, earlier), later(20))
    (second,) = await claimed(store, await worker(store))

    await store.finish_job(claim_on(second), failure(Reason.IMAGE_UNAVAILABLE), later(30))

    assert await store.job_log(first.id) == []


async def test_each_job_has_its_own_log(store: Store) -> None:
    await started(store, 3)
    jobs = await claimed(store, await worker(store), 3)
    for job in jobs:
        log = [StageLog(stage=0, stdout=job.id, stderr="")]
        await store.finish_job(claim_on(job), success(log), later(20))
    assert [(await store.job_log(job.id))[0].stdout for job in jobs] == [job.id for job in jobs]
