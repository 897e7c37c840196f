"""Long polls: answered the moment there is work, and a poll whose client has gone takes none."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.api.raw import connect
from tests.api.serving import Api, eventually, run_config, serving


async def test_a_poll_is_answered_by_the_start_of_a_run(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.create()
    poll = await any_api.poll(worker)
    await any_api.data("POST", f"grading_run/{run_id}")
    answer = await poll
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=60"
    assert answer.json()["data"]["stages"][0]["env"]["GRADING_RUN_ID"] == run_id


@pytest.fixture
def no_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only wake-ups count: nobody looks into the queue once a second."""

    async def never(*_arguments: object, **_named: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("broadway_api.server.watch_queue", never)


@pytest.mark.usefixtures("no_watching")
@pytest.mark.parametrize("event", ["start", "phase", "retry", "hand_back"])
async def test_whatever_queues_a_job_wakes_a_poll(api: Api, event: str) -> None:
    busy, waiting = await api.register(), await api.register()
    run_id = await api.create(run_config(1, post=event == "phase"))
    if event == "start":
        poll = await api.poll(waiting)
        await api.data("POST", f"grading_run/{run_id}")
    else:
        await api.data("POST", f"grading_run/{run_id}")
        job = await api.claim(busy)
        poll = await api.poll(waiting)
        if event == "phase":
            await api.report(busy, job)
        elif event == "retry":
            await api.report(busy, job, success=False, reason="runtime_error")
        else:
            await api.data("DELETE", f"worker/{busy}")
    assert (await poll).status_code == 200


@pytest.mark.usefixtures("no_watching")
async def test_one_run_wakes_as_many_polls_as_it_has_jobs(api: Api) -> None:
    workers = [await api.register() for _ in range(4)]
    polls = [await api.poll(worker) for worker in workers]
    await api.start(run_config(3))
    done, waiting = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 3:
        more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    assert {poll.result().status_code for poll in done} == {200}
    assert len({poll.result().json()["data"]["job_id"] for poll in done}) == 3
    assert waiting == {polls[3]}  # the longest waiting came first
    api.stop.set()
    assert (await polls[3]).status_code == 498


async def test_jobs_that_another_api_queued_are_found(mongo_url: str) -> None:
    async with serving(mongo_url) as one, serving(mongo_url) as two:
        poll = await one.poll(await one.register())
        run_id = await two.start()
        assert (await poll).json()["data"]["stages"][0]["env"]["GRADING_RUN_ID"] == run_id


async def test_a_poll_that_waits_for_nothing_ends_empty(api: Api) -> None:
    answer = await (await api.poll(await api.register(), wait=1))
    assert answer.status_code == 498
    assert answer.reason_phrase == "Queue Empty"
    assert answer.json()["data"] == {"message": "the queue is empty"}


@pytest.mark.parametrize(
    ("preference", "applied"),
    [
        ("wait=1", "wait=1"),
        ("respond-async, wait=1", "wait=1"),
        ('Wait = "1"', "wait=1"),
        ("wait=0", "wait=0"),
        ("wait=600", "wait=60"),
        ("wait=99999999999999999999", "wait=60"),
        ("wait=-1", None),
        ("wait=soon", None),
        ("await=5", None),
        ("respond-async", None),
    ],
)
async def test_preferences(api: Api, preference: str, applied: str | None) -> None:
    """A job is there already, so that nobody waits however long they would."""
    worker = await api.register()
    await api.start()
    answer = await api.call("GET", "grading_job", worker=worker, headers={"Prefer": preference})
    assert answer.status_code == 200
    assert answer.headers.get("Preference-Applied") == applied


@pytest.mark.usefixtures("no_watching")
async def test_a_poll_whose_client_has_gone_takes_no_job(api: Api) -> None:
    gone, stays = await api.register(), await api.register()
    async with connect(api.port) as connection:
        await connection.head("GET", "/api/v1/grading_job", worker_id=gone, Prefer="wait=60")
        await api.store.until_called("claim_jobs")
        await api.ping()  # by now it has found nothing, and waits
        poll = await api.poll(stays)
        connection.abort()

        async def left() -> bool:
            await api.ping()
            claims = [task for task in asyncio.all_tasks() if "coro=<Fleet.claim()" in repr(task).partition(">")[0]]
            return len(claims) == 1

        await eventually(left)
    run_id = await api.start()
    assert (await poll).json()["data"]["attempt"] == 1
    assert (await api.run(run_id))["counts"]["running"] == 1
    (job,) = (await api.run(run_id, jobs="running"))["jobs"]
    assert job["worker_id"] == stays


async def test_a_job_claimed_while_its_client_goes_is_given_again(api: Api) -> None:
    worker = await api.register()
    run_id = await api.start()
    api.store.gates["claim_jobs"] = asyncio.Event()
    async with connect(api.port) as connection:
        await connection.head("GET", "/api/v1/grading_job", worker_id=worker)
        await api.store.until_called("claim_jobs")
    api.store.gates.pop("claim_jobs").set()  # at the very time at which the connection ends
    job = await api.claim(worker)
    assert job["attempt"] == 1
    assert (await api.report(worker, job)).status_code == 200
    assert (await api.run(run_id))["state"] == "finished"


async def test_a_stopping_api_answers_polls_and_what_is_in_flight(sqlite_url: str) -> None:
    async with serving(sqlite_url) as api:
        worker = await api.register()
        poll = await api.poll(worker)
        api.store.gates["create_run"] = asyncio.Event()
        async with connect(api.port) as connection:
            body = json.dumps(run_config()).encode()
            await connection.head("POST", "/api/v1/grading_run", Content_Length=str(len(body)))
            await connection.send(body)
            await api.store.until_called("create_run")
            api.stop.set()
            assert (await poll).status_code == 498
            api.store.gates["create_run"].set()
            assert (await connection.answer()).status == 200
            assert await connection.closed()
