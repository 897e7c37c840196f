"""Following a run: from bytes to events, and over a restart of the API."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from broadway_client import AsyncClient, errors
from broadway_client.events import Interruption, RunEvent, RunFeed
from broadway_client.exchange import Retries
from tests.client.serving import DEADLINE, ROOT, TOKEN, ApiProcess, FakeWorker, failing, run_config, until

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


def test_an_unknown_run_is_said_at_once(api: ApiProcess) -> None:
    with api.client() as client, pytest.raises(errors.NotFound):
        list(client.run_events("5f" * 12))
