"""What courses are told of the queue in the course protocol, from its description."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.api.course_protocol import World, world
from tests.api.serving import DEADLINE, eventually, serving

Event = tuple[str, str | int]


async def jobs_of(there: World, run_id: str) -> list[str]:
    return list((await there.status(run_id))["student_jobs_state"])


async def length(there: World) -> int:
    return int((await there.query.data("GET", "queue/cs241/length"))["length"])


async def position(there: World, job_id: str) -> int | None:
    answer = await there.query.call("GET", f"queue/cs241/{job_id}/position")
    if answer.status_code == 400:
        return None
    assert answer.status_code == 200, answer.text
    return int(answer.json()["data"]["position"])


@asynccontextmanager
async def stream(there: World, job_id: str) -> AsyncIterator[asyncio.Queue[Event | None]]:
    """The events of a job as they come; None when the stream has ended."""
    heard: asyncio.Queue[Event | None] = asyncio.Queue()
    opened = asyncio.Event()

    async def listen() -> None:
        url, headers = f"/api/v1/stream/cs241/{job_id}", {"Authorization": f"Bearer {there.query.token}"}
        async with there.query.http.stream("GET", url, headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            opened.set()
            name = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    assert name == "status_update"
                    data = json.loads(line.removeprefix("data: "))
                    assert set(data) == {"type", "data"}
                    heard.put_nowait((data["type"], data["data"]))
        heard.put_nowait(None)

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(DEADLINE):
        await opened.wait()
    try:
        yield heard
    finally:
        listening.cancel()


async def following(heard: asyncio.Queue[Event | None]) -> Event | None:
    async with asyncio.timeout(DEADLINE):
        return await heard.get()


async def test_a_queue_is_as_long_as_what_nobody_has_taken(there: World) -> None:
    assert await length(there) == 0
    await there.grade(students=7)
    assert await length(there) == 7
    await there.other.data("POST", "grading_config/cs225/mp1", {"student_pipeline": [{"image": "a"}]})
    await there.other.data("POST", "grading_run/cs225/mp1", {"students_env": [{}] * 3})
    assert await length(there) == 7
    await there.register("w")
    for _ in range(10):
        assert await there.poll("w") is not None
    assert await length(there) == 0


async def test_a_position_is_how_many_are_handed_out_before(there: World) -> None:
    jobs = [job_id for _ in range(5) for job_id in await jobs_of(there, await there.grade())]
    assert [await position(there, job_id) for job_id in jobs] == [0, 1, 2, 3, 4]
    await there.register("w")
    for number, job_id in enumerate(jobs):
        assert (await there.poll("w"))["grading_job_id"] == job_id
        assert await position(there, job_id) is None
        assert [await position(there, other) for other in jobs[number + 1 :]] == list(range(len(jobs) - number - 1))


async def test_what_is_not_queued_has_no_position(here: World) -> None:
    for job_id in ("weird", "0" * 24):
        assert await position(here, job_id) is None
    (job_id,) = await jobs_of(here, await here.grade())
    theirs = await here.other.call("GET", f"queue/cs225/{job_id}/position")
    assert theirs.status_code == 400


async def test_a_stream_tells_positions_and_states_and_ends_with_the_job(there: World) -> None:
    (first,) = await jobs_of(there, await there.grade())
    (second,) = await jobs_of(there, await there.grade())
    await there.register("w")
    async with stream(there, second) as heard:
        assert await following(heard) == ("state", "QUEUED")
        assert await following(heard) == ("position", 1)
        await there.poll("w")
        assert await following(heard) == ("position", 0)
        await there.report("w", first)
        await there.poll("w")
        assert await following(heard) == ("state", "STARTED")
        await there.report("w", second, success=False)
        assert await following(heard) == ("state", "FAILED")
        assert await following(heard) is None


async def test_a_stream_of_a_job_that_has_ended_says_so_and_ends(here: World) -> None:
    (job_id,) = await jobs_of(here, await here.grade())
    await here.register("w")
    await here.poll("w")
    await here.report("w", job_id)
    async with stream(here, job_id) as heard:
        assert [await following(heard) for _ in range(3)] == [("state", "STARTED"), ("state", "FINISHED"), None]


async def test_positions_are_computed_once_a_second_for_all_who_listen(here: World) -> None:
    jobs = await jobs_of(here, await here.grade(students=12))
    looks = here.api.store.calls.count("queue_positions")
    async with stream(here, jobs[0]) as a, stream(here, jobs[5]) as b, stream(here, jobs[9]) as c:
        for heard, place in ((a, 0), (b, 5), (c, 9)):
            assert await following(heard) == ("state", "QUEUED")
            assert await following(heard) == ("position", place)
        await here.api.store.until_called("queue_positions", looks + 4)
        assert all(heard.empty() for heard in (a, b, c))  # nothing has changed, nothing is told


@pytest.mark.parametrize("job_id", ["weird", "0" * 24])
async def test_a_stream_of_nothing_is_a_400(here: World, job_id: str) -> None:
    assert (await here.query.call("GET", f"stream/cs241/{job_id}")).status_code == 400


async def test_a_stream_ends_when_the_api_stops(sqlite_url: str) -> None:
    async with serving(sqlite_url) as api, world(api) as here:
        (job_id,) = await jobs_of(here, await here.grade())
        async with stream(here, job_id) as heard:
            assert await following(heard) == ("state", "QUEUED")
            api.stop.set()
            assert await following(heard) == ("position", 0)
            assert await following(heard) is None


async def test_a_listener_that_goes_is_forgotten(here: World) -> None:
    (job_id,) = await jobs_of(here, await here.grade())
    async with stream(here, job_id) as heard:
        assert await following(heard) == ("state", "QUEUED")

    async def nobody_listens() -> bool:
        names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
        return not any(name.startswith("StreamHandler.") for name in names)

    await eventually(nobody_listens)
