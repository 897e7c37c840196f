"""SQLite files of earlier releases."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broadway_api.domain import JobState
from broadway_api.store import open_store, records
from broadway_api.store.sqlite_schema import VERSIONS
from tests.contract.backends import SqliteBackend
from tests.contract.scenarios import NOW, claim_on, created, jobs_of, running, success


def write_earlier(path: Path, version: int, source: Path) -> None:
    """Make a file as the release of that schema did, and put into it what it could have kept of another file."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        for statements in VERSIONS[:version]:
            connection.executescript(statements)
        connection.execute("ATTACH ? AS source", (str(source),))
        for table in ("runs", "jobs", "workers"):
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM source.{table}")  # noqa: S608
        connection.execute(f"PRAGMA user_version = {version:d}")
        connection.commit()


@pytest.mark.parametrize("version", range(1, len(VERSIONS)))
async def test_a_file_of_each_earlier_schema_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    new, backend = SqliteBackend(tmp_path / "new"), SqliteBackend(tmp_path / "earlier")
    async with open_store(new.url) as store:
        job = await running(store)
    write_earlier(backend.path, version, new.path)

    async with open_store(backend.url) as store:
        assert await store.job(job.id) == job
        result = success(results={"score": 1, "max_score": 2, "tests": []})
        assert (await store.finish_job(claim_on(job), result, NOW)).job.score == 1
        run = await created(store)
        assert [waiting.state for waiting in await jobs_of(store, run)] == [JobState.WAITING]
    assert backend.schema_version() == len(VERSIONS)
    async with open_store(backend.url) as store:
        assert (await store.job(job.id)).max_score == 2


async def test_deliveries_of_an_earlier_version_know_whose_they_are(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path)
    with closing(sqlite3.connect(backend.path)) as connection, connection:
        for statements in VERSIONS[:7]:
            connection.executescript(statements)
        connection.execute(
            "INSERT INTO deliveries VALUES (?, ?, 1, ?, NULL)",
            ("d1", '{"grading_run_id": "r1"}', records.to_millis(NOW)),
        )
    backend.set_schema_version(7)
    async with open_store(backend.url) as store:
        (found,) = await store.run_deliveries("r1")
        assert (found.id, found.created_at) == ("d1", NOW)
