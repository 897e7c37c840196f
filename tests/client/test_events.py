"""Following a run: from bytes to events, and over a restart of the API."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from broadway_client import AsyncClient, errors
from broadway_client.events import Interruption, LogFeed, RunEvent, RunFeed
from broadway_client.exchange import Retries
from broadway_client.models import Printed
from tests.client.serving import DEADLINE, ROOT, TOKEN, ApiProcess, FakeWorker, failing, piece, run_config, until

STATUS = json.loads((ROOT / "tests/samples/run_status_answer.json").read_text())["data"]


def feed(**named: Any) -> RunFeed:
    return RunFeed("run", named.pop("retries", Retries()), last_event_id=None, on_interruption=None)


def test_events_may_come_in_any_pieces() -> None:
    data = json.dumps(STATUS)
    stream = f": still here\n\nid: 7\nevent: run\ndata: {data}\n\nevent: other\ndata: x\n\nid: 8\r\nevent: run\r\n"
    stream += f"data: {data}\r\n\r\nid: 9\nevent: run\ndata: cut o"
    followed = feed()
    found = [event for byte in stream.encode() for event in followed.take(bytes([byte]))]
    assert [event.id for event in found] == ["7", "8"]
    assert found[0].run.counts["succeeded"] == STATUS["counts"]["succeeded"]
    assert followed.request().headers["Last-Event-ID"] == "8"


def test_the_end_of_a_run_is_the_end() -> None:
    followed = feed()
    list(followed.take(f"id: 1\nevent: run\ndata: {json.dumps(STATUS | {'state': 'failed'})}\n\n".encode()))
    assert followed.is_over


def test_a_run_that_ended_at_the_last_event_says_no_more() -> None:
    followed = feed()
    followed.opened(httpx.Response(204))
    assert followed.is_over


def test_patience_is_for_one_interruption_at_a_time() -> None:
    now = 0.0
    followed = feed(retries=Retries(patience=10, clock=lambda: now, chance=lambda: 1.0))
    lost = httpx.ReadError("gone", request=httpx.Request("GET", "http://api.test"))
    for _ in range(3):
        now += followed.interrupted(lost)
    now += 9
    list(followed.take(b": still here\n\n"))
    now += followed.interrupted(lost)  # it counts anew
    now += 10
    with pytest.raises(errors.Unreachable):
        followed.interrupted(lost)


def test_a_restart_of_the_api_is_told_and_survived(own_api: ApiProcess) -> None:
    interruptions: list[Interruption] = []
    events: list[RunEvent] = []
    with own_api.client() as client:
        run_id = client.create_run(run_config("amy", "bob")).grading_run_id
        client.start_run(run_id)

        def follow() -> None:
            for event in client.run_events(run_id, patience=DEADLINE, on_interruption=interruptions.append):
                events.append(event)  # noqa: PERF402  # the test looks while it grows

        with ThreadPoolExecutor() as pool:
            followed = pool.submit(follow)
            until(lambda: len(events) > 0 or followed.done())
            own_api.stop()
            until(lambda: len(interruptions) > 0 or followed.done())
            own_api.start()
            worker = FakeWorker(own_api)
            worker.work(failing)
            worker.close()
            followed.result(DEADLINE)
    assert events[-1].run.success
    assert events[-1].run.reasons == {"stage_failed": 1}
    assert len({event.id for event in events}) == len(events), "nothing is told twice"


async def test_the_same_without_blocking(api: ApiProcess, worker: FakeWorker) -> None:
    async with AsyncClient(api.url, TOKEN) as client:
        run_id = (await client.create_run(run_config("amy"))).grading_run_id
        await client.start_run(run_id)
        ended = asyncio.create_task(client.wait_for_run(run_id))
        await asyncio.to_thread(worker.work, failing)
        assert (await asyncio.wait_for(ended, DEADLINE)).success
        assert [run.grading_run_id async for run in client.runs(state="finished")] == [run_id]


def test_a_list_is_followed_over_a_restart_of_the_api(own_api: ApiProcess) -> None:
    with own_api.client() as client:
        run_id = client.create_run(run_config("amy")).grading_run_id
        followed = client.follow_runs(patience=DEADLINE)
        (run,) = next(followed).grading_runs
        assert (run.grading_run_id, run.state.value, run.counts["waiting"]) == (run_id, "ready", 1)
        own_api.stop()
        own_api.start()
        client.start_run(run_id)
        assert any(seen.grading_runs[0].state.value == "students" for seen in followed)
        followed.close()
        assert [one.depth for one in next(client.follow_queue())] == [1]
        worker = FakeWorker(own_api)
        assert [one.worker_id for one in next(client.follow_workers())] == [worker.id]
        worker.close()


async def test_lists_are_followed_without_blocking(api: ApiProcess, worker: FakeWorker) -> None:
    async with AsyncClient(api.url, TOKEN) as client:
        run_id = (await client.create_run(run_config("amy"))).grading_run_id
        await client.start_run(run_id)
        async with aclosing(client.follow_runs(limit=1)) as runs:
            assert [run.grading_run_id for run in (await anext(runs)).grading_runs] == [run_id]
        async with aclosing(client.follow_workers()) as workers:
            assert worker.id in {one.worker_id for one in await anext(workers)}
        async with aclosing(client.follow_queue()) as queues:
            assert sum(one.depth for one in await anext(queues)) >= 1
            await asyncio.to_thread(worker.work, failing)
            async with asyncio.timeout(DEADLINE):
                while await anext(queues):
                    pass  # until it is empty


def test_an_unknown_run_is_said_at_once(api: ApiProcess) -> None:
    with api.client() as client, pytest.raises(errors.NotFound):
        list(client.run_events("5f" * 12))


def test_a_log_may_come_in_any_pieces_and_with_words_of_later_releases() -> None:
    output = {"attempt": 1, "stage": 0, "stream": "stdout", "start": 3, "text": "\u2603\n", "dropped": 3, "more": 1}
    end = {"job_id": "j", "state": "succeeded", "reason": None, "attempt": 1, "dropped": 3}
    events: tuple[tuple[str, str, Any], ...] = (
        ("1-9.0", "output", output),
        ("1-9.0", "mood", {}),
        ("1-end", "end", end),
    )
    stream = "".join(f"id: {id_}\nevent: {name}\ndata: {json.dumps(data)}\n\n" for id_, name, data in events)
    followed = LogFeed("j", 2, Retries(), last_event_id=None, on_interruption=None)
    found = [event for byte in stream.encode() for event in followed.take(bytes([byte]))]
    assert [(event.id, event.name) for event in found] == [("1-9.0", "output"), ("1-end", "end")]
    assert isinstance(found[0].what, Printed)
    assert (found[0].what.text, found[0].what.dropped) == ("\u2603\n", 3)
    assert followed.is_over
    assert followed.request().params == {"follow": "true", "stage": "2"}
    assert followed.request().headers["Last-Event-ID"] == "1-end"


async def test_a_log_is_followed_without_blocking(api: ApiProcess, worker: FakeWorker) -> None:
    async with AsyncClient(api.url, TOKEN) as client:
        run_id = (await client.create_run(run_config("amy"))).grading_run_id
        await client.start_run(run_id)
        job = await asyncio.to_thread(worker.claim)

        async def follow() -> str:
            texts = [
                event.what.text async for event in client.follow_log(job["job_id"]) if isinstance(event.what, Printed)
            ]
            return "|".join(texts)

        followed = asyncio.create_task(follow())
        await asyncio.to_thread(worker.until_followed, job)
        await asyncio.to_thread(worker.post, job, piece(0, "one "))
        await asyncio.to_thread(worker.report, job, {"exit_code": 0, "stdout": "one two"})
        assert await asyncio.wait_for(followed, DEADLINE) in ("one |two", "one two")
        with pytest.raises(errors.NotFound):
            _ = [event async for event in client.follow_log("5f" * 12)]
