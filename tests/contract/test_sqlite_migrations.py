"""SQLite files of earlier releases."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from broadway_api.domain import JobState
from broadway_api.store import open_store
from broadway_api.store.sqlite_schema import VERSIONS
from tests.contract.backends import SqliteBackend
from tests.contract.scenarios import NOW, claim_on, created, jobs_of, running, success


async def test_a_file_from_before_there_were_results_is_brought_up_to_date(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path)
    async with open_store(backend.url) as store:
        job = await running(store)
    with closing(sqlite3.connect(backend.path)) as connection:
        for column in ("score", "max_score", "results"):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    backend.set_schema_version(2)

    async with open_store(backend.url) as store:
        assert (await store.job(job.id)).score is None
        result = success(results={"score": 1, "max_score": 2, "tests": []})
        assert (await store.finish_job(claim_on(job), result, NOW)).job.score == 1
        new = await created(store)
        assert [waiting.state for waiting in await jobs_of(store, new)] == [JobState.WAITING]
    assert backend.schema_version() == len(VERSIONS)
    async with open_store(backend.url) as store:
        assert (await store.job(job.id)).max_score == 2
