"""Several API servers on one replica set: any of them answers anything, and they hear of one another's jobs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import pymongo
import pytest

from tests import services
from tests.api.serving import Api, run_config, serving


@pytest.fixture
def replica_url(mongo_replica_set_url: str) -> Iterator[str]:
    """A new database of a replica set."""
    name = f"api_{uuid.uuid4().hex}"
    yield services.with_database(mongo_replica_set_url, name)
    with pymongo.MongoClient[dict[str, object]](mongo_replica_set_url) as client:
        client.drop_database(name)


@pytest.fixture
async def apis(replica_url: str) -> AsyncIterator[tuple[Api, Api]]:
    """Two servers."""
    async with serving(replica_url) as one, serving(replica_url) as two:
        yield one, two


@pytest.fixture
def no_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the change stream tells of other processes' jobs: nobody looks into the queue once a second."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("broadway_api.server.watch_queue", never)


@pytest.mark.usefixtures("no_watching")
async def test_a_poll_at_one_is_answered_by_a_start_at_the_other(apis: tuple[Api, Api]) -> None:
    one, two = apis
    worker = await one.register()
    started: list[str] = []
    poll = await one.poll(worker)
    while not poll.done():  # a change stream that has only just been opened misses what came before
        started.append(await two.start())
        await asyncio.wait([poll], timeout=1)
    answer = await poll
    assert answer.json()["data"]["stages"][0]["env"]["GRADING_RUN_ID"] in started
    while answer.status_code == 200:
        await one.report(worker, answer.json()["data"])
        answer = await one.call("GET", "grading_job", worker=worker)

    poll = await one.poll(worker)
    loop = asyncio.get_running_loop()
    run_id = await two.start()
    began = loop.time()
    answer = await poll
    assert answer.json()["data"]["stages"][0]["env"]["GRADING_RUN_ID"] == run_id
    assert loop.time() - began < 20  # on an idle machine some milliseconds; without the news the poll lasts a minute


async def test_every_request_may_go_to_any_of_them(apis: tuple[Api, Api]) -> None:
    one, two = apis
    worker = await one.register()
    run_id = await two.create(run_config(2, post=True))
    await one.data("POST", f"grading_run/{run_id}")
    for turn in range(3):
        asks, reports = (one, two) if turn % 2 else (two, one)
        job = await asks.claim(worker)
        beat = {"running": [{"job_id": job["job_id"], "attempt": job["attempt"]}]}
        assert (await reports.data("POST", "heartbeat", beat, worker=worker))["lost"] == []
        assert (await reports.report(worker, job)).status_code == 200
        assert (await asks.report(worker, job)).json()["data"]["state"] == "succeeded"  # sent again, to the other one
    assert (await one.run(run_id))["state"] == (await two.run(run_id))["state"] == "finished"


async def test_events_at_one_tell_what_is_done_at_the_other(apis: tuple[Api, Api]) -> None:
    one, two = apis
    run_id = await one.start()
    looks = one.store.calls.count("run_summary")
    following = asyncio.create_task(one.call("GET", f"grading_run/{run_id}/events"))
    await one.store.until_called("run_summary", looks + 1)
    await two.data("POST", f"grading_run/{run_id}/cancel")
    assert '"state":"cancelled"' in (await following).text


async def test_a_run_is_cancelled_at_one_and_retried_at_the_other(apis: tuple[Api, Api]) -> None:
    one, two = apis
    worker = await one.register()
    run_id = await two.start(run_config(2))
    job = await one.claim(worker)
    await two.data("POST", f"grading_run/{run_id}/cancel")
    assert (await one.report(worker, job)).status_code == 409
    answers = await asyncio.gather(*(api.call("POST", f"grading_run/{run_id}/retry") for api in (one, two)))
    assert sorted({answer.status_code for answer in answers} | {200}) in ([200], [200, 400])
    run = await one.run(run_id)
    assert (run["state"], run["counts"]["queued"]) == ("students", 2)
