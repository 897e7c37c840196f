"""What a claim and a result cost the embedded store: statements and commits, counted and never timed."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from broadway_api.store.port import Store
from broadway_api.store.sqlite import SqliteStore
from tests.contract.scenarios import LEASE, NOW, claim_on, claimed, started, success, worker

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


class Writer:
    """What the store's writer executes."""

    def __init__(self, store: Store) -> None:
        self._engine = cast(SqliteStore, store)._engine
        self.statements: list[str] = []

    async def watch(self) -> None:
        """From now on."""
        await self._engine.write(lambda db: db.set_trace_callback(self.statements.append))
        self.statements.clear()

    def executed(self) -> list[str]:
        """The first words of what was executed since the last call."""
        words = [" ".join(statement.split()[:2]) for statement in self.statements if not statement.startswith("--")]
        self.statements.clear()
        return words


@pytest.mark.parametrize("queued", [5, 2_000])
async def test_a_claim_takes_as_few_statements_however_long_the_queue(store: Store, queued: int) -> None:
    await started(store, queued)
    worker_id = await worker(store)
    writer = Writer(store)
    await writer.watch()

    await store.claim_jobs(worker_id, 1, NOW, LEASE)

    looked_up = ["SELECT *", "UPDATE workers", "SELECT id", "WITH RECURSIVE"]
    taken = ["SELECT id", "UPDATE jobs", "SELECT id,"]
    assert writer.executed() == ["BEGIN IMMEDIATE", *looked_up, *taken, "INSERT INTO", "COMMIT"]
    await claimed(store, worker_id, 4)  # right after it: that the worker asked is known
    looked_up.remove("UPDATE workers")
    executed = writer.executed()
    assert sorted(executed) == sorted(["BEGIN IMMEDIATE", *looked_up, *taken * 4, "INSERT INTO", "COMMIT"])


async def test_a_result_takes_four_statements(store: Store) -> None:
    await started(store, 2)
    (job,) = await claimed(store, await worker(store))
    writer = Writer(store)
    await writer.watch()

    await store.finish_job(claim_on(job), success(), NOW)

    assert writer.executed() == [
        "BEGIN IMMEDIATE",
        *("SELECT id,", "UPDATE jobs", "UPDATE workers", "SELECT EXISTS"),
        "COMMIT",
    ]


async def test_results_that_come_together_share_what_is_not_about_one_job(store: Store) -> None:
    await started(store, 5)
    jobs = await claimed(store, await worker(store), 4)
    writer = Writer(store)
    await writer.watch()

    await store.finish_jobs([(claim_on(job), success()) for job in jobs], NOW)

    taken = ["SELECT id,", "UPDATE jobs"] * 4
    assert writer.executed() == ["BEGIN IMMEDIATE", *taken, "UPDATE workers", "SELECT EXISTS", "COMMIT"]


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
