"""What a claim and a result cost the embedded store: statements and commits, counted and never timed."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from broadway_api.domain import StageLog
from broadway_api.store.port import Store
from broadway_api.store.sqlite import SqliteStore
from tests.contract.scenarios import LEASE, NOW, claim_on, claimed, started, success, worker

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


#: `data_version` tells whether another program has written to the file.
BEGIN = ["BEGIN IMMEDIATE", "PRAGMA data_version"]

#: A result of a job that printed something.
LOGGED = success([StageLog(stage=0, stdout="tested", stderr="")])

#: How far the queue was handed out is noted, ahead of what follows.
FRONTIER = ["SELECT max(rank)", "INSERT OR"]


class Writer:
    """What the store's writer executes."""

    def __init__(self, store: Store) -> None:
        self._engine = cast(SqliteStore, store)._engine
        self.statements: list[str] = []

    async def watch(self) -> None:
        """From now on."""
        await self._engine.write(lambda db: db.set_trace_callback(self.statements.append))
        self.statements.clear()

    async def plan(self, statement: str) -> list[str]:
        """How it executes a statement."""
        return await self._engine.read(lambda db: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")])

    def executed(self) -> list[str]:
        """The first words of what was executed since the last call."""
        words = [" ".join(statement.split()[:2]) for statement in self.statements if not statement.startswith("--")]
        self.statements.clear()
        return words


@pytest.mark.parametrize("queued", [8, 2_000])
async def test_a_claim_takes_as_few_statements_however_long_the_queue(store: Store, queued: int) -> None:
    await started(store, queued)
    worker_id = await worker(store)
    writer = Writer(store)
    await writer.watch()

    await store.claim_jobs(worker_id, 1, NOW, LEASE)

    looked_up = ["SELECT *", "UPDATE workers", "SELECT id,", "WITH RECURSIVE"]
    taken = ["SELECT id,", "UPDATE jobs"]
    assert writer.executed() == [*BEGIN, *looked_up, *taken, "SELECT requirement,", *FRONTIER, "COMMIT"]
    await claimed(store, worker_id, 7)  # right after it: that the worker asked is known, and so is all about it
    turns = [2, 1, 3, 1]  # jobs of the urgent order, then one of the fair one
    taken = [statement for jobs in turns for statement in ("SELECT id,", *["UPDATE jobs"] * jobs)]
    assert writer.executed() == [*BEGIN, *taken, "COMMIT"]


async def test_a_frontier_is_moved_once_for_many_claims(store: Store) -> None:
    await started(store, 200)
    worker_id = await worker(store)
    writer = Writer(store)
    await writer.watch()

    for _ in range(130):
        await claimed(store, worker_id)

    assert writer.executed().count(FRONTIER[0]) == 2  # none again until 65 were handed out


async def test_a_result_takes_four_statements(store: Store) -> None:
    await started(store, 2)
    (job,) = await claimed(store, await worker(store))
    writer = Writer(store)
    await writer.watch()

    await store.finish_job(claim_on(job), LOGGED, NOW)

    assert writer.executed() == [*BEGIN, "UPDATE jobs", "INSERT OR", "UPDATE workers", "SELECT EXISTS", "COMMIT"]


async def test_results_that_come_together_share_what_is_not_about_one_job(store: Store) -> None:
    await started(store, 5)
    jobs = await claimed(store, await worker(store), 4)
    writer = Writer(store)
    await writer.watch()

    await store.finish_jobs([(claim_on(job), LOGGED) for job in jobs], NOW)

    written = [*["UPDATE jobs"] * 4, *["INSERT OR"] * 4, "UPDATE workers"]
    assert writer.executed() == [*BEGIN, *written, "SELECT EXISTS", "COMMIT"]


async def test_results_that_bring_the_next_jobs_read_nothing_but_those(store: Store) -> None:
    await started(store, 8)
    worker_id = await worker(store)
    jobs = await claimed(store, worker_id, 4)
    writer = Writer(store)
    await writer.watch()

    results = [(claim_on(job), LOGGED) for job in jobs]
    await store.exchange(worker_id, results, 4, NOW, LEASE, holding=[job.id for job in jobs])

    written = [*["UPDATE jobs"] * 4, *["INSERT OR"] * 4, "UPDATE workers"]
    taken = [*["SELECT id,", *["UPDATE jobs"] * 3], *["SELECT id,", "UPDATE jobs"]]
    assert writer.executed() == [*BEGIN, *written, *taken, "COMMIT"]


async def test_a_look_at_leases_reads_the_running_jobs_alone(store: Store) -> None:
    await started(store, 2)
    await claimed(store, await worker(store))
    writer = Writer(store)
    await writer.watch()

    await store.expire_leases(NOW, LEASE)

    (look,) = (statement for statement in writer.statements if "SELECT" in statement)
    assert await writer.plan(look) == ["SCAN jobs USING INDEX jobs_held"]  # which has none but those


async def test_a_heartbeat_reads_nothing(store: Store) -> None:
    await started(store, 2)
    worker_id = await worker(store)
    jobs = await claimed(store, worker_id, 2)
    writer = Writer(store)
    await writer.watch()

    await store.heartbeat(worker_id, [claim_on(job) for job in jobs], NOW, LEASE)
    assert writer.executed() == [*BEGIN, "UPDATE workers", *["UPDATE jobs"] * 2, "COMMIT"]
    await store.ping()
    await store.claim_jobs(worker_id, 1, NOW, LEASE, holding=[job.id for job in jobs])
    assert "SELECT *" not in writer.executed()  # what is known of the worker is not forgotten for those


async def test_whatever_workers_send_at_the_same_time_is_one_commit(store: Store) -> None:
    await started(store, 32)
    workers = [await worker(store) for _ in range(16)]
    held = [(await claimed(store, worker_id))[0] for worker_id in workers]
    writer = Writer(store)
    await writer.watch()

    await asyncio.gather(
        *(store.finish_job(claim_on(job), success(), NOW) for job in held),
        *(store.claim_jobs(worker_id, 1, NOW, LEASE) for worker_id in workers),
        *(store.heartbeat(worker_id, None, NOW, LEASE) for worker_id in workers),
    )

    executed = writer.executed()
    assert (executed.count("BEGIN IMMEDIATE"), executed.count("COMMIT")) == (1, 1)
    assert "SAVEPOINT work" not in executed
