"""The store's faults: a full disk, a change of primary. 503 meanwhile, nothing lost, and on by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pymongo
import pytest

from tests import services
from tests.api.serving import Api, run_config, serving

MEGABYTE = 1024 * 1024


@contextmanager
def small_disk(path: Path, *, megabytes: int) -> Iterator[Path]:
    """A file system of its own, of that size."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


async def accepted_until_full(api: Api) -> list[str]:
    """Create runs until one is refused; those that were acknowledged."""
    runs: list[str] = []
    while True:
        answer = await api.call("POST", "grading_run", run_config(400))
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) > 0
            assert "full" in answer.json()["message"]
            return runs
        assert answer.status_code == 200
        runs.append(answer.json()["data"]["grading_run_id"])


async def test_a_full_disk_refuses_loses_and_spoils_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=24) as disk:
        (disk / "ballast").write_bytes(b"\0" * 21 * MEGABYTE)
        async with serving(f"sqlite:///{disk}/broadway.db") as api:
            worker = await api.register()
            first = await api.start()
            job = await api.claim(worker)
            runs = await accepted_until_full(api)
            for run_id in runs:
                assert (await api.run(run_id))["counts"]["waiting"] == 400
            log = {"stdout": "x" * 2 * MEGABYTE}
            refused = await api.report(worker, job, info=[log])
            assert refused.status_code == 503

            (disk / "ballast").unlink()

            assert (await api.report(worker, job, info=[log])).status_code == 200
            assert (await api.run(first))["state"] == "finished"
            await api.start(run_config(400))
        async with serving(f"sqlite:///{disk}/broadway.db") as api:
            for run_id in runs:
                assert (await api.run(run_id))["counts"]["waiting"] == 400


@pytest.fixture(scope="module")
def frail_url() -> Iterator[str]:
    """A replica set of this module's own, since what happens to it here happens to all who use it."""
    with services.mongo_replica_set() as url:
        yield url


async def insist(api: Api, method: str, path: str, body: object = None, **named: str) -> httpx.Response:
    """Repeat a request until it is answered otherwise than with 503, as graders and clients do."""
    while True:
        try:
            answer = await api.call(method, path, body, **named)  # type: ignore[arg-type]
        except httpx.TimeoutException:
            continue
        if answer.status_code != 503:
            return answer
        assert int(answer.headers["Retry-After"]) > 0
        await asyncio.sleep(0.2)


def step_down(primary: pymongo.MongoClient[dict[str, Any]]) -> Callable[[], None]:
    """It says so, and another one takes over at once."""
    primary.admin.command("replSetStepDown", 10)
    return lambda: None


def freeze(primary: pymongo.MongoClient[dict[str, Any]]) -> Callable[[], None]:
    """Its connections stay open, and nothing comes out of them."""
    pid = primary.admin.command("serverStatus")["pid"]
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def kill(primary: pymongo.MongoClient[dict[str, Any]]) -> Callable[[], None]:
    """It stays dead: two of three go on."""
    os.kill(primary.admin.command("serverStatus")["pid"], signal.SIGKILL)
    return lambda: None


@pytest.mark.parametrize("fault", [step_down, freeze, kill])  # the last one for good
async def test_a_primary_that_fails_costs_nobody_anything(
    frail_url: str, fault: Callable[[pymongo.MongoClient[dict[str, Any]]], Callable[[], None]]
) -> None:
    url = services.with_database(frail_url, f"api_{uuid.uuid4().hex}")
    async with serving(url) as one, serving(url) as two:
        run_id = await one.start(run_config(40, post=True))
        half = asyncio.Event()
        reported: list[str] = []

        async def grade(api: Api) -> None:
            worker = await api.register()
            while not (await insist(api, "GET", f"grading_run/{run_id}")).json()["data"]["finished_at"]:
                claimed = await insist(api, "GET", "grading_job", worker=worker)
                if claimed.status_code != 200:
                    await asyncio.sleep(0.1)
                    continue
                job = claimed.json()["data"]
                body = {"success": True, "info": [], "attempt": job["attempt"]}
                answer = await insist(api, "POST", f"grading_job/{job['job_id']}", body, worker=worker)
                assert answer.json()["data"]["state"] == "succeeded"
                reported.append(job["job_id"])
                if len(reported) >= 15:
                    half.set()

        def strike() -> Callable[[], None]:
            with pymongo.MongoClient[dict[str, Any]](frail_url) as client:
                return fault(client)

        async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
            graders = [tasks.create_task(grade(api)) for api in (one, two)]
            await half.wait()
            undo = await asyncio.to_thread(strike)
            try:
                await asyncio.wait(graders, timeout=30)
            finally:
                undo()

        run = await two.run(run_id)
        assert (run["state"], run["counts"]["succeeded"]) == ("finished", 41)
        assert sorted(reported) == sorted(set(reported))
