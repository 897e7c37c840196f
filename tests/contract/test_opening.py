"""Opening a store: what it finds there, and what it says of one that it cannot use."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pymongo
import pytest

from broadway_api.domain import JobType, RunState
from broadway_api.errors import SchemaTooNew, StoreInUse, StoreUnavailable, StoreUrlInvalid
from broadway_api.store import open_store
from broadway_client.cli.processes import free_port
from tests.contract.backends import Backend, MongoBackend, SqliteBackend
from tests.contract.scenarios import LEASE, NOW, claim_on, claimed, created, jobs_of, started, success, worker

HOLD_OPEN = """
import asyncio, sys
from broadway_api.store import open_store

async def main():
    async with open_store(sys.argv[1]):
        print("open", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


async def test_what_was_acknowledged_is_there_after_opening_again(backend: Backend) -> None:
    async with open_store(backend.url) as store:
        run = await started(store, 2, post=True)
        (job,) = await claimed(store, await worker(store))
        finished = await store.finish_job(claim_on(job), success(), NOW)

    async with open_store(backend.url) as store:
        assert await store.run(run.id) == run
        assert await store.job(job.id) == finished.job
        assert await store.queue_depth() == 1
        assert await store.unsettled_runs() == [run.id]


async def test_a_store_that_answers_and_writes_answers_a_ping(backend: Backend) -> None:
    async with open_store(backend.url) as store:
        await store.ping()


async def test_the_schemas_version_is_recorded(backend: Backend) -> None:
    async with open_store(backend.url):
        pass
    assert backend.schema_version() == backend.version


async def test_a_store_of_a_later_release_is_not_opened(backend: Backend) -> None:
    async with open_store(backend.url):
        pass
    backend.set_schema_version(99)

    with pytest.raises(SchemaTooNew) as caught:
        async with open_store(backend.url):
            pass

    assert (caught.value.found, caught.value.known) == (99, backend.version)
    assert backend.schema_version() == 99


async def test_a_store_that_failed_to_open_can_be_opened_later(backend: Backend) -> None:
    async with open_store(backend.url):
        pass
    backend.set_schema_version(99)
    with pytest.raises(SchemaTooNew):
        async with open_store(backend.url):
            pass
    backend.set_schema_version(backend.version)

    async with open_store(backend.url) as store:
        await store.ping()


async def test_a_database_of_the_first_version_is_upgraded_with_its_queue(
    mongo_standalone_url: str,
) -> None:
    with pymongo.MongoClient[dict[str, Any]](mongo_standalone_url) as client:
        backend = MongoBackend(mongo_standalone_url, client)
        async with open_store(backend.url) as store:
            waiting, queued = await created(store, 2), await started(store, 2)
        jobs = backend.database["jobs"]
        jobs.update_many({}, {"$unset": {"priority": "", "requirement": ""}})
        jobs.create_index([("rank", 1), ("_id", 1)], name="queue", partialFilterExpression={"state": "queued"})
        backend.database["courses"].update_many({}, {"$unset": {"priority": ""}})
        backend.database["runs"].update_many({}, {"$unset": {"openings": ""}})
        backend.set_schema_version(1)

        async with open_store(backend.url) as store:
            await store.start_run(waiting.id, RunState.STUDENTS, NOW)
            await store.open_phase(waiting.id, JobType.STUDENT, NOW)
            in_order = [job.id for run in (queued, waiting) for job in await jobs_of(store, run)]
            assert await store.queue_positions(in_order[3:]) == {in_order[3]: 3}
            handed_out = await store.claim_jobs(await worker(store), 10, NOW, LEASE)

        assert [job.run_id for job in handed_out] == [queued.id] * 2 + [waiting.id] * 2
        assert "queue" not in jobs.index_information()
        assert backend.schema_version() == backend.version
        backend.clear()


async def test_a_file_belongs_to_one_process(tmp_path: Path) -> None:
    url = SqliteBackend(tmp_path).url
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD_OPEN, url), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"open\n"

    with pytest.raises(StoreInUse):
        async with open_store(url):
            pass

    await other.communicate(b"")  # the end of its input is what it waits for
    assert other.returncode == 0

    async with open_store(url) as store:  # that process has ended, its lock with it
        await store.ping()


async def test_a_file_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        async with open_store(f"sqlite:///{tmp_path}/file/broadway.db"):
            pass


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    url = f"mongodb://somebody:secret@127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=200"
    with pytest.raises(StoreUnavailable) as caught:
        async with open_store(url):
            pass
    assert "127.0.0.1" in caught.value.problem
    assert "Timeout" not in caught.value.problem  # of all that the driver says, only what went wrong
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broadway.db",
        "sqlite:",
        "sqlite://broadway.db",
        "sqlite:///",
        "postgres://somebody:secret@host/db",
        "mongodb://",
        "mongodb://somebody:se:cret@host",
        "mongodb://somebody:secret/@host:0",
        "mongodb://somebody:secret@host:port",
    ],
)
async def test_a_url_that_names_no_store_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(StoreUrlInvalid) as caught:
        open_store(url)
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None
