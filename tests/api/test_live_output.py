"""What running jobs print, followed: from its tail on, through lost attempts, over several APIs, to the log's end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from broadway_api import live_output
from broadway_api.policy import Policy
from tests.api.raw import connect
from tests.api.serving import DEADLINE, SHORT_LEASE, TOKEN, Api, Json, eventually, run_config, sample, serving

Event = tuple[str, Json]
NOBODY = "0123456789abcdef01234567"


class Followed:
    """The events that came."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last_id: str | None = None

    async def next(self) -> Event | None:
        """The next one; None at the end of the stream."""
        event: dict[str, str] = {}
        async with asyncio.timeout(DEADLINE):
            async for line in self._lines:
                if not line and event:
                    self.last_id = event["id"]
                    return event["event"], json.loads(event["data"])
                name, colon, value = line.partition(": ")
                if name and colon:
                    event[name] = value
        assert not event
        return None

    async def until(self, wanted: Callable[[str, Json], bool]) -> list[Event]:
        """All events up to the first that is wanted."""
        seen: list[Event] = []
        while not seen or not wanted(*seen[-1]):
            event = await self.next()
            assert event is not None, seen
            seen.append(event)
        return seen

    async def rest(self) -> list[Event]:
        """All events to the end of the stream."""
        seen: list[Event] = []
        while event := await self.next():
            seen.append(event)
        return seen


@asynccontextmanager
async def following(api: Api, job: str, last_id: str | None = None, **params: Any) -> AsyncIterator[Followed]:
    headers = {"Authorization": TOKEN} | ({"Last-Event-ID": last_id} if last_id else {})
    path = f"/api/v1/grading_job/{job}/log"
    async with api.http.stream("GET", path, params={"follow": "true", **params}, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        yield Followed(answer.aiter_lines())


async def post(api: Api, worker: str, job: Json, *pieces: Json, **fields: Any) -> httpx.Response:
    """Post output at the job's attempt."""
    body = {"attempt": job["attempt"], "output": list(pieces)} | fields
    return await api.call("POST", f"grading_job/{job['job_id']}/output", body, worker=worker)


async def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"]["followed"])


def piece(start: int, text: str, stream: str = "stdout", stage: int = 0) -> Json:
    return {"stage": stage, "stream": stream, "start": start, "text": text}


def is_state(state: str) -> Callable[[str, Json], bool]:
    return lambda name, data: name == "job" and data["state"] == state


def printed(events: list[Event], stream: str = "stdout") -> str:
    return "".join(data["text"] for name, data in events if name == "output" and data["stream"] == stream)


async def running(api: Api, **config: Any) -> tuple[str, Json]:
    """A worker, and the job that it holds."""
    worker = await api.register()
    await api.start(run_config(**config))
    return worker, await api.claim(worker)


async def job_of(api: Api, run_id: str) -> str:
    return str((await api.run(run_id, jobs="all"))["jobs"][0]["job_id"])


# --- following -------------------------------------------------------------------------------------------------------


async def test_a_job_is_followed_from_before_it_starts_to_its_end(any_api: Api) -> None:
    api = any_api
    worker = await api.register()
    run_id = await api.create()
    job_id = await job_of(api, run_id)
    async with following(api, job_id) as events:
        assert (await events.until(is_state("waiting")))[0][1]["attempt"] == 0
        await api.data("POST", f"grading_run/{run_id}")
        job = await api.claim(worker)
        await events.until(is_state("running"))
        beat = {"running": [{"job_id": job_id, "attempt": 1}]}
        (name,) = (await api.data("POST", "heartbeat", beat, worker=worker))["followed"][job_id]

        stages = [{"stage": 0, "ended": False}]
        assert await names(await post(api, worker, job, piece(0, "grüße "), stages=stages)) == [name]
        seen = await events.until(lambda kind, data: kind == "output")
        assert [kind for kind, _ in seen] == ["stage", "output"]
        assert seen[-1][1] == {"attempt": 1, **piece(0, "grüße "), "dropped": 0}

        await post(api, worker, job, piece(0, "grüße "), piece(100, "far "), piece(0, "oh", "stderr"))
        seen = await events.until(lambda kind, data: kind == "output" and data["stream"] == "stderr")
        assert seen[0][1]["dropped"] == 100 - len("grüße ".encode())

        info = {"exit_code": 3, "stdout": "x" * 104 + "rest", "stderr": "oh no", "reason": "stage_failed"}
        await api.report(worker, job, success=False, info=[info])
        seen = await events.rest()
    assert (printed(seen), printed(seen, "stderr")) == ("rest", " no")
    assert [kind for kind, _ in seen if kind != "output"] == ["stage", "job", "end"]
    stage, end = seen[-3][1], seen[-1][1]
    assert (stage["state"], stage["exit_code"], stage["reason"]) == ("ended", 3, "stage_failed")
    assert (end["state"], end["reason"], end["dropped"]) == ("failed", "stage_failed", 92)


async def test_a_job_that_has_ended_is_told_as_a_whole(any_api: Api) -> None:
    worker, job = await running(any_api)
    log = "".join(f"line {number}\n" for number in range(20_000))
    await any_api.report(worker, job, info=[{"exit_code": 0, "stdout": log}, {"exit_code": 0, "stderr": "two"}])
    async with following(any_api, job["job_id"]) as events:
        seen = await events.rest()
    assert printed(seen) == log
    assert [kind for kind, _ in seen if kind != "output"] == ["job", "stage", "stage", "end"]
    assert seen[-1][1]["dropped"] == 0
    async with following(any_api, job["job_id"], stage=1) as events:
        seen = await events.rest()
    assert (printed(seen), printed(seen, "stderr")) == ("", "two")
    answer = await any_api.call(
        "GET", f"grading_job/{job['job_id']}/log?follow=true", headers={"Last-Event-ID": events.last_id or ""}
    )
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_grader_that_sends_nothing_while_it_runs_is_told_of_at_the_end(api: Api) -> None:
    worker, job = await running(api)
    async with following(api, job["job_id"]) as events:
        await events.until(is_state("running"))
        await api.report(worker, job, info=[{"exit_code": 0, "stdout": "all of it"}])
        seen = await events.rest()
    assert printed(seen) == "all of it"


async def test_who_comes_back_is_told_only_what_is_new(api: Api) -> None:
    worker, job = await running(api)
    async with following(api, job["job_id"]) as events:
        await events.next()
        (first,) = await names(await post(api, worker, job, piece(0, "one "), piece(0, "err", "stderr")))
        await events.until(lambda kind, data: kind == "output" and data["stream"] == "stderr")

    async def unfollowed() -> bool:
        return await names(await post(api, worker, job)) == []

    await eventually(unfollowed)
    async with following(api, job["job_id"], events.last_id) as events:
        await events.next()
        (second,) = await names(await post(api, worker, job, piece(0, "one two "), piece(0, "err", "stderr")))
        assert second != first, "the grader is to begin again with its tail"
        seen = await events.until(lambda kind, data: kind == "output")
        assert seen[-1][1]["text"] == "two "
        await api.report(worker, job, info=[{"exit_code": 0, "stdout": "one two three", "stderr": "err"}])
        seen = await events.rest()
    assert (printed(seen), printed(seen, "stderr")) == ("three", "")


async def test_a_lost_attempt_is_not_mixed_into_the_next(sqlite_url: str) -> None:
    async with serving(sqlite_url, policy=SHORT_LEASE) as api:
        worker, job = await running(api)
        async with following(api, job["job_id"]) as events:
            await events.next()
            await post(api, worker, job, piece(0, "in vain"))
            await events.until(lambda kind, data: kind == "output")
            await events.until(is_state("queued"))
            other = await api.register()
            again = await api.claim(other)
            assert (again["job_id"], again["attempt"]) == (job["job_id"], 2)
            stale = await post(api, worker, job, piece(7, " and late"))
            assert stale.status_code == 409
            await post(api, other, again, piece(0, "again"))
            seen = await events.until(lambda kind, data: kind == "output")
            assert [(kind, data["attempt"]) for kind, data in seen] == [("job", 2), ("stage", 2), ("output", 2)]
            assert seen[-1][1]["text"] == "again"


async def test_a_stopping_server_ends_its_streams(api: Api) -> None:
    _, job = await running(api)
    async with following(api, job["job_id"]) as events:
        await events.next()
        api.stop.set()
        assert await events.rest() == []


async def test_a_follower_that_reads_nothing_costs_little_and_learns_what_it_missed(api: Api) -> None:
    """10 MB go by while it sleeps; its API keeps a tail of them, and the grader is not held up."""
    worker, job = await running(api)
    path = f"/api/v1/grading_job/{job['job_id']}/log?follow=true"
    text = "0123456789abcde\n" * 4_000
    async with connect(api.port) as connection:
        await connection.head("GET", path)

        async def followed() -> bool:
            return await names(await post(api, worker, job)) != []

        await eventually(followed)
        for number in range(160):
            assert (await post(api, worker, job, piece(number * len(text), text))).status_code == 200
        said = await connection.until(b'"start":%d' % (159 * len(text)))
        await api.report(worker, job, info=[{"exit_code": 0, "stdout": text * 160 + "end"}])
        said += await connection.until(b"event: end")
    outputs = [json.loads(line[6:]) for line in said.split(b"\n") if line.startswith(b'data: {"attempt"')]
    outputs = [data for data in outputs if "text" in data]
    dropped = sum(data["dropped"] for data in outputs)
    told = sum(len(data["text"]) for data in outputs)
    assert told + dropped == 160 * len(text) + len("end")
    # What a socket's buffers take and the tail: not all that went by.
    assert dropped > 1_000_000


async def test_followers_are_only_so_many(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_output, "MOST_FOLLOWERS", 1)
    _, job = await running(api)
    path = f"grading_job/{job['job_id']}/log?follow=true"
    async with following(api, job["job_id"]) as events:
        await events.next()
        refused = await api.call("GET", path)
        assert refused.status_code == 429
        assert "1 logs are followed" in refused.json()["data"]["message"]
        assert int(refused.headers["Retry-After"]) > 0
        assert "broadway_log_followers 1.0" in (await api.http.get("/metrics", headers={"Authorization": TOKEN})).text
    status = 429

    async def room() -> bool:
        nonlocal status
        async with api.http.stream("GET", f"/api/v1/{path}", headers={"Authorization": TOKEN}) as answer:
            status = answer.status_code
        return status == 200

    await eventually(room)


async def test_the_bodies_are_those_of_the_samples(api: Api) -> None:
    worker, job = await running(api)
    wanted = sample("log_events")
    wanted[0]["data"]["job_id"] = job["job_id"]
    async with following(api, job["job_id"]) as events:
        seen = [await events.next()]
        posted = await post(api, worker, job, **sample("output_request"))
        (name,) = posted.json()["data"]["followed"]
        assert posted.json() == sample("output_answer") | {"data": {"followed": [name]}}
        beat = {"running": [{"job_id": job["job_id"], "attempt": 1}]}
        answer = await api.call("POST", "heartbeat", beat, worker=worker)
        followed = {"lost": [], "followed": {job["job_id"]: [name]}}
        assert answer.json() == sample("heartbeat_answer_followed") | {"data": followed}
        seen += [await events.next() for _ in wanted[1:]]
    assert seen == [(one["event"], one["data"]) for one in wanted]


# --- what graders post -----------------------------------------------------------------------------------------------


async def test_only_who_holds_the_attempt_may_post(any_api: Api) -> None:
    api = any_api
    worker, job = await running(api)
    other = await api.register()
    refusals = [
        await post(api, other, job),
        await post(api, worker, job | {"attempt": 2}),
        await post(api, worker, job | {"job_id": NOBODY}),
        await post(api, NOBODY, job),
    ]
    assert [answer.status_code for answer in refusals] == [409, 409, 404, 401]
    await api.report(worker, job)
    assert (await post(api, worker, job)).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        b"",
        {},
        {"attempt": 0},
        {"attempt": 1, "output": [piece(-1, "a")]},
        {"attempt": 1, "output": [piece(0, "a", "stdin")]},
        {"attempt": 1, "output": [piece(0, "")]},
        {"attempt": 1, "output": [piece(0, "a" * 65_537)]},
        {"attempt": 1, "stages": [{"stage": 100, "ended": True}]},
        {"attempt": 1, "more": 1},
    ],
    ids=str,
)
async def test_what_is_no_output_is_refused(api: Api, body: Any) -> None:
    worker, job = await running(api)
    answer = await api.call("POST", f"grading_job/{job['job_id']}/output", body, worker=worker)
    assert answer.status_code == 400
    assert answer.json()["data"]["message"]


async def test_a_large_body_is_refused_on_its_head(api: Api) -> None:
    worker, job = await running(api)
    answer = await post(api, worker, job, *[piece(0, "a" * 60_000)] * 20)
    assert answer.status_code == 413


async def test_what_nobody_follows_is_neither_kept_nor_passed_on(any_api: Api) -> None:
    worker, job = await running(any_api)
    assert await names(await post(any_api, worker, job, piece(0, "unheard"))) == []
    beat = {"running": [{"job_id": job["job_id"], "attempt": 1}]}
    assert await any_api.data("POST", "heartbeat", beat, worker=worker) == {"lost": []}
    assert "broadcast" not in any_api.store.calls
    assert (
        "broadway_live_output_bytes_total 0.0"
        in (await any_api.http.get("/metrics", headers={"Authorization": TOKEN})).text
    )


# --- several APIs ----------------------------------------------------------------------------------------------------


async def test_who_follows_at_one_api_hears_what_is_posted_at_another(mongo_url: str) -> None:
    async with serving(mongo_url, policy=Policy()) as one, serving(mongo_url) as two, serving(mongo_url) as three:
        worker, job = await running(one)

        async def followers(number: int) -> None:
            async def known() -> bool:
                told = [await names(await post(api, worker, job)) for api in (one, two)]
                return all(len(listed) == number for listed in told)

            await eventually(known)

        async with following(two, job["job_id"]) as events, following(three, job["job_id"]) as late:
            await events.until(is_state("running"))
            await late.until(is_state("running"))
            await followers(2)
            for number, api in enumerate((one, two, one, one, two)):
                await post(api, worker, job, piece(2 * number, f"{number} "))
            for stream in (events, late):
                seen = await stream.until(lambda kind, data: kind == "output" and data["text"].endswith("4 "))
                # Two ways to one follower are no order; what came too late is told as missed.
                told = sum(len(data["text"]) + data["dropped"] for kind, data in seen if kind == "output")
                assert told == 10
            await one.report(worker, job, info=[{"exit_code": 0, "stdout": "0 1 2 3 4 5 "}])
            assert printed(await events.rest()) == "5 "
