"""What the embedded store keeps at hand is what stands in its file, whatever changed that or was undone."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import cast

import pytest

from broadway_api.domain import FinishedJob, JobState
from broadway_api.errors import ClaimLost, StoreUnavailable
from broadway_api.store import sqlite_cache
from broadway_api.store.port import Store
from broadway_api.store.sqlite import SqliteStore
from tests.contract.backends import SqliteBackend
from tests.contract.scenarios import LEASE, NOW, claim_on, claimed, started, success, worker

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def test_what_another_program_writes_is_seen_by_the_next_claim(backend: SqliteBackend, store: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)
    (job,) = await claimed(store, worker_id)

    with closing(sqlite3.connect(backend.path)) as other, other:
        other.execute("UPDATE workers SET draining = 1")
        other.execute("UPDATE jobs SET state = 'cancelled', worker_id = NULL WHERE state = 'running'")

    answers, jobs = await store.exchange(worker_id, [(claim_on(job), success())], 1, NOW, LEASE, holding=[job.id])
    assert [type(answer) for answer in answers] == [ClaimLost]
    assert jobs == []


async def test_a_claim_and_a_result_that_were_undone_with_the_work_beside_them_are_done_again(store: Store) -> None:
    await started(store, 4)
    worker_id = await worker(store)
    (held,) = await claimed(store, worker_id)

    def fail_half_way(db: sqlite3.Connection) -> None:
        db.execute("UPDATE workers SET hostname = 'nowhere'")
        raise ValueError("a bug")

    exchanging = store.exchange(worker_id, [(claim_on(held), success())], 2, NOW, LEASE, holding=[held.id])
    failing = cast(SqliteStore, store)._engine.write(fail_half_way, brief=True)
    answers, jobs = (await asyncio.gather(exchanging, failing, return_exceptions=True))[0]  # type: ignore[misc]
    assert isinstance(failing.exception(), ValueError)
    assert [type(answer) for answer in answers] == [FinishedJob]
    assert [await store.job(job.id) for job in jobs] == jobs
    assert {job.id for job in await store.held_jobs(worker_id)} == {job.id for job in jobs}
    results = [(claim_on(job), success()) for job in (*jobs, held)]
    repeated = [cast(FinishedJob, answer).repeated for answer in await store.finish_jobs(results, NOW)]
    assert repeated == [False, False, True]


async def test_what_could_not_be_committed_has_not_happened(store: Store) -> None:
    await started(store, 3)
    worker_id = await worker(store)
    (held,) = await claimed(store, worker_id)
    connection = await cast(SqliteStore, store)._engine.write(lambda db: db)

    def refuse_commits(action: int, operation: str | None, *_: object) -> int:
        refused = action == sqlite3.SQLITE_TRANSACTION and operation == "COMMIT"
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    connection.set_authorizer(refuse_commits)
    with pytest.raises(StoreUnavailable):
        await store.exchange(worker_id, [(claim_on(held), success())], 1, NOW, LEASE, holding=[held.id])
    connection.set_authorizer(None)

    assert [job.id for job in await store.held_jobs(worker_id)] == [held.id]
    finished, jobs = await store.exchange(worker_id, [(claim_on(held), success())], 1, NOW, LEASE, holding=[held.id])
    assert [cast(FinishedJob, answer).repeated for answer in finished] == [False]
    assert [await store.job(job.id) for job in jobs] == jobs


async def test_more_workers_than_are_kept_at_hand_are_served_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_cache, "CAPACITY", 2)
    run = await started(store, 24)
    workers = [await worker(store) for _ in range(5)]
    held = [(await claimed(store, worker_id))[0] for worker_id in workers]
    for _ in range(3):
        for number, worker_id in enumerate(workers):
            job = held[number]
            answers, jobs = await store.exchange(
                worker_id, [(claim_on(job), success())], 1, NOW, LEASE, holding=[job.id]
            )
            assert [(type(answer), cast(FinishedJob, answer).phase_over) for answer in answers] == [
                (FinishedJob, False)
            ]
            held[number] = jobs[0]
    summary = await store.run_summary(run.id)
    assert (summary.counts[JobState.SUCCEEDED], summary.counts[JobState.RUNNING]) == (15, 5)
