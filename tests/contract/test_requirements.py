"""What jobs require and workers have: nobody gets what it cannot run, and what nobody can run is in nobody's way."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any, cast

import pytest

from broadway_api.domain import JobState, Reason
from broadway_api.store import sqlite_claims
from broadway_api.store.port import Store
from broadway_api.store.sqlite import SqliteStore
from tests.contract.backends import SqliteBackend
from tests.contract.scenarios import LEASE, NOW, claim_on, claimed, failure, later, started, states, worker


async def test_a_worker_gets_what_it_can_run_alone(store: Store, peer: Store) -> None:
    gpu, arm = await started(store, 2, require="gpu"), await started(store, 2, require="arch=arm64,gpu")
    plain = await started(store, 2)

    async def gets(**labels: Any) -> list[str]:
        return [job.run_id for job in await peer.claim_jobs(await worker(store, **labels), 1, NOW, LEASE)]

    assert await gets(arch="amd64") == [plain.id]
    assert await gets(arch="arm64") == [plain.id]
    assert await gets(arch="arm64") == []
    assert await gets(gpu="", arch="amd64") == [gpu.id]
    assert await gets(gpu="a100", arch="arm64") in ([arm.id], [gpu.id])
    assert sorted([*await states(store, gpu), *await states(store, arm)]).count(JobState.RUNNING) == 2


async def test_a_job_keeps_what_it_requires(store: Store) -> None:
    await started(store, 1, require="gpu", priority=3)
    (job,) = await claimed(store, await worker(store, gpu=""))
    assert (job.requirement, job.priority) == ("gpu", 3)
    assert await store.job(job.id) == job
    finished = await store.finish_job(claim_on(job), failure(Reason.RUNTIME_ERROR), NOW)
    assert finished.job.state is JobState.QUEUED
    assert await store.claim_jobs(await worker(store), 1, later(1), LEASE) == []
    (again,) = await store.claim_jobs(await worker(store, gpu=""), 1, later(1), LEASE)
    assert again.id == job.id


async def test_several_slots_are_filled_from_all_that_a_worker_can_run(store: Store) -> None:
    runs = [await started(store, 2, require=text) for text in ("", "gpu", "gpu=a100", "tpu")]
    jobs = await store.claim_jobs(await worker(store, gpu="a100"), 10, NOW, LEASE)
    assert sorted(job.run_id for job in jobs) == sorted([run.id for run in runs[:3]] * 2)


async def test_another_worker_tries_first_what_one_failed(store: Store) -> None:
    await started(store, 1, require="gpu")
    faulty, other = await worker(store, gpu=""), await worker(store, gpu="")
    (job,) = await claimed(store, faulty)
    await store.finish_job(claim_on(job), failure(Reason.RUNTIME_ERROR), NOW)
    assert await store.claim_jobs(faulty, 1, later(1), LEASE) == []
    assert [one.id for one in await store.claim_jobs(other, 1, later(1), LEASE)] == [job.id]


async def test_what_is_queued_is_known_by_what_it_requires(store: Store, peer: Store) -> None:
    assert await store.queued_requirements(5) == {}
    for text, number in (("", 3), ("gpu", 7), ("tpu", 1)):
        await started(store, number, require=text)
    assert await peer.queued_requirements(5) == {"": 3, "gpu": 5, "tpu": 1}


# --- what nobody can run is in nobody's way ---------------------------------------------------------------------------


async def test_courses_share_what_they_can_while_one_waits_in_vain(store: Store) -> None:
    """Stranded jobs do not hold the queue's time back: else a newcomer would begin in the past, and go first."""
    await started(store, 5, course="vain", require="quantum")
    worker_id = await worker(store)
    busy = await started(store, 200, course="busy")
    await claimed(store, worker_id, 100)

    newcomer = await started(store, 100, course="newcomer")

    order = [job.run_id for job in await claimed(store, worker_id, 40)]
    assert abs(order.count(busy.id) - order.count(newcomer.id)) <= 2


async def test_a_course_does_not_pay_for_jobs_that_nobody_can_run(store: Store) -> None:
    worker_id = await worker(store)
    await started(store, 500, course="vain", require="quantum")
    other = await started(store, 50, course="other")
    possible = await started(store, 50, course="vain")
    order = [job.run_id for job in await claimed(store, worker_id, 40)]
    assert abs(order.count(possible.id) - order.count(other.id)) <= 2


async def test_courses_that_wait_in_vain_share_what_comes_at_last(store: Store) -> None:
    plain = await worker(store)
    one = await started(store, 500, course="one", require="gpu")
    await started(store, 30, course="busy")
    await claimed(store, plain, 30)
    two = await started(store, 20, course="two", require="gpu")
    order = [job.run_id for job in await claimed(store, await worker(store, gpu=""), 30)]
    assert abs(order.count(one.id) - order.count(two.id)) <= 2


# --- what a claim reads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("order", [sqlite_claims._URGENT, sqlite_claims._FAIR], ids=["urgent", "fair"])
async def test_a_claim_finds_its_jobs_by_one_statement_that_reads_the_heads_of_indexes(
    backend: SqliteBackend, store: Store, order: tuple[str, str], several: bool
) -> None:
    """What MongoDB reads is in `test_mongo.py`."""
    await started(store, 3)
    with closing(sqlite3.connect(backend.path)) as connection:
        statement = "EXPLAIN QUERY PLAN " + sqlite_claims.first_in(order, several=several, for_others=False)
        plan = [row[3] for row in connection.execute(statement, ("", 0, '["", "gpu"]' if several else "gpu", 4))]
    assert any(step.startswith(f"SEARCH jobs USING INDEX {order[0]} (requirement=?") for step in plan), plan
    if not several:
        assert len(plan) == 1  # nothing is sorted
    reads = [step for step in plan if step.startswith(("SEARCH", "SCAN")) and order[0] not in step]
    assert set(reads) <= {
        "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
        "SCAN served VIRTUAL TABLE INDEX 1:",
    }


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_what_monitoring_asks_reads_neither_all_jobs_nor_all_runs(backend: SqliteBackend, store: Store) -> None:
    """What MongoDB reads is in `test_mongo.py`."""
    await started(store, 3)
    asked: list[str] = []
    engine = cast(SqliteStore, store)._engine
    await engine.read(lambda db: db.set_trace_callback(asked.append))
    await store.queue_by_course()
    await store.workers()
    await engine.read(lambda db: db.set_trace_callback(None))
    selects = [statement for statement in asked if statement.startswith("SELECT")]
    assert len(selects) == 3
    with closing(sqlite3.connect(backend.path)) as connection:
        plan = [row[3] for statement in selects for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    scans = {step for step in plan if step.startswith("SCAN")}
    assert scans == {"SCAN runs USING INDEX runs_unsettled", "SCAN jobs USING INDEX jobs_held", "SCAN workers"}
