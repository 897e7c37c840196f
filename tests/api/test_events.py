"""A run as a stream of events: told from the present on, resumed where it broke off, ended with the run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.api.raw import connect
from tests.api.serving import DEADLINE, TOKEN, Api, eventually, run_config

Event = dict[str, Any]


class Stream:
    """The events that came, each with `id`, `event` and `data`."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def next(self) -> Event | None:
        """The next event; None at the end of the stream."""
        event: Event = {}
        async with asyncio.timeout(DEADLINE):
            async for line in self._lines:
                if not line and event:
                    return event | {"data": json.loads(event["data"])}
                name, colon, value = line.partition(": ")
                if name and colon:
                    event[name] = value
        assert not event
        return None


@asynccontextmanager
async def following(api: Api, run_id: str, last_seen: str | None = None) -> AsyncIterator[Stream]:
    headers = {"Authorization": TOKEN} | ({"Last-Event-ID": last_seen} if last_seen else {})
    async with api.http.stream("GET", f"/api/v1/grading_run/{run_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        yield Stream(answer.aiter_lines())


async def step(api: Api, worker: str) -> None:
    """Grade one student."""
    await api.report(worker, await api.claim(worker))


async def test_events_tell_what_has_become_of_a_run_until_its_end(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.create(run_config(1))
    seen: list[Event] = []
    async with following(any_api, run_id) as events:

        async def until(state: str) -> None:
            while not seen or seen[-1]["data"]["state"] != state:
                event = await events.next()
                assert event is not None
                seen.append(event)

        await until("ready")
        await any_api.data("POST", f"grading_run/{run_id}")
        await until("students")
        await step(any_api, worker)
        await until("finished")
        assert await events.next() is None
    assert {event["event"] for event in seen} == {"run"}
    assert len({event["id"] for event in seen}) == len(seen)
    assert list(seen[-1]["data"]) == list(await any_api.run(run_id))
    assert seen[-1]["data"]["counts"]["succeeded"] == 1


async def test_who_comes_back_is_told_only_what_is_new(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(2))
    async with following(any_api, run_id) as events:
        first = await events.next()
    assert first is not None
    await step(any_api, worker)
    async with following(any_api, run_id, first["id"]) as events:
        second = await events.next()
        assert second is not None
        assert second["data"]["counts"]["succeeded"] == 1
    summaries = any_api.store.calls.count("run_summary")
    resumed = asyncio.create_task(
        any_api.call("GET", f"grading_run/{run_id}/events", headers={"Last-Event-ID": second["id"]})
    )
    await any_api.store.until_called("run_summary", summaries + 2)
    assert not resumed.done()  # nothing is new, so nothing is told
    await step(any_api, worker)
    (told,) = [line for line in (await resumed).text.splitlines() if line.startswith("data: ")]
    assert json.loads(told.removeprefix("data: "))["state"] == "finished"


async def test_who_has_seen_the_end_is_told_not_to_come_back(any_api: Api) -> None:
    run_id = await any_api.create()
    await any_api.data("POST", f"grading_run/{run_id}/cancel")
    async with following(any_api, run_id) as events:
        last = await events.next()
        assert last is not None
        assert await events.next() is None
    answer = await any_api.call("GET", f"grading_run/{run_id}/events", headers={"Last-Event-ID": last["id"]})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_run_that_is_not_there_is_told_in_the_envelope(api: Api) -> None:
    answer = await api.call("GET", "grading_run/0123456789abcdef01234567/events")
    assert (answer.status_code, answer.json()["status"]) == (404, "fail")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert (await api.call("GET", "grading_run/nonsense/events")).status_code == 400


async def test_a_client_that_goes_is_not_looked_after(api: Api) -> None:
    run_id = await api.start()
    async with connect(api.port) as connection:
        await connection.head("GET", f"/api/v1/grading_run/{run_id}/events")
        await api.store.until_called("run_summary", 2)
        connection.abort()

        async def left() -> bool:
            await api.ping()
            return not [task for task in asyncio.all_tasks() if "EventsHandler._follow" in repr(task)]

        await eventually(left)


async def test_a_stopping_server_ends_its_streams(api: Api) -> None:
    run_id = await api.start()
    async with following(api, run_id) as events:
        assert await events.next() is not None
        api.stop.set()
        assert await events.next() is None


async def test_a_stopping_server_does_not_tell_who_came_back_that_the_run_has_ended(api: Api) -> None:
    run_id = await api.start()
    async with following(api, run_id) as events:
        last = await events.next()
        assert last is not None
    summaries = api.store.calls.count("run_summary")
    resumed = asyncio.create_task(
        api.call("GET", f"grading_run/{run_id}/events", headers={"Last-Event-ID": last["id"]})
    )
    await api.store.until_called("run_summary", summaries + 1)
    api.stop.set()
    answer = await resumed
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert "event:" not in answer.text
