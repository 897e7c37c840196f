"""SQLite files of earlier releases."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from broadway_api.domain import Job, JobState
from broadway_api.store import open_store, records
from broadway_api.store.sqlite_schema import VERSIONS
from tests.contract.backends import SqliteBackend
from tests.contract.scenarios import NOW, claim_on, created, jobs_of, new_run, success


def made_by_version_2(backend: SqliteBackend) -> Job:
    """A file with a running job, as that release left it."""
    run, (job,) = new_run(1)
    now = records.to_millis(NOW)
    with closing(sqlite3.connect(backend.path)) as connection, connection:
        for statements in VERSIONS[:2]:
            connection.executescript(statements)
        connection.execute(
            "INSERT INTO runs (id, course, state, config, created_at, started_at) VALUES (?, ?, 'students', ?, ?, ?)",
            (run.id, run.course, records.config_to_text(run.config), now, now),
        )
        connection.execute(
            "INSERT INTO jobs (id, run_id, type, seq, student, state, rank, attempt, attempt_limit,"
            " worker_id, lease_expires_at, queued_at, started_at)"
            " VALUES (?, ?, 'student', 1, '{}', 'running', 1, 1, 3, 'w', ?, ?, ?)",
            (job.id, run.id, now, now, now),
        )
    backend.set_schema_version(2)
    return replace(job, worker_id="w", attempt=1)


async def test_a_file_from_before_there_were_results_is_brought_up_to_date(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path)
    job = made_by_version_2(backend)

    async with open_store(backend.url) as store:
        assert (await store.job(job.id)).score is None
        result = success(results={"score": 1, "max_score": 2, "tests": []})
        assert (await store.finish_job(claim_on(job), result, NOW)).job.score == 1
        new = await created(store)
        assert [waiting.state for waiting in await jobs_of(store, new)] == [JobState.WAITING]
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
