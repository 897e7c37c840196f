"""What people look at, over HTTP: clusters, searches, histograms, and lists as they change."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.api.serving import DEADLINE, TOKEN, Api, run_config


async def failed_run(api: Api, students: int = 6) -> str:
    """A run whose students failed of two causes."""
    run = await api.start(run_config(students))
    worker = await api.register(hostname="grader")
    for number in range(students):
        said = "ValueError: no such 1" if number % 3 else f"AssertionError: {number}"
        info = [{"exit_code": 1, "reason": "stage_failed", "stderr": said}]
        await api.report(worker, await api.claim(worker), success=False, info=info)
    return run


async def test_failures_show_as_causes(any_api: Api) -> None:
    run = await failed_run(any_api)
    data = await any_api.data("GET", f"grading_run/{run}/failures")
    assert data["failed"] == 6
    assert [(one["reason"], one["cause"], one["jobs"]) for one in data["causes"]] == [
        ("stage_failed", "ValueError: no such #", 4),
        ("stage_failed", "AssertionError: #", 2),
    ]
    assert data["causes"][0]["example"]["student"] == {"NET_ID": "s1"}
    query = {"cause": "AssertionError: #", "sort": "finished", "order": "descending"}
    found = await any_api.data("GET", f"grading_run/{run}/jobs", params=query)
    assert [job["student"]["NET_ID"] for job in found["jobs"]] == ["s3", "s0"]
    statistics = await any_api.data("GET", f"grading_run/{run}/statistics")
    assert sum(bar["jobs"] for bar in statistics["seconds"]["bars"]) == 6
    assert statistics["scores"] is None


@pytest.mark.parametrize(
    "query",
    [
        {"sort": "name"},
        {"sort": ""},
        {"reason": ""},
        {"order": "up"},
        {"states": "ended"},
        {"limit": 201},
        {"offset": -1},
        {"search": "x" * 201},
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(api: Api, query: dict[str, Any]) -> None:
    run = await api.create()
    answer = await api.call("GET", f"grading_run/{run}/jobs", params=query)
    assert answer.status_code == 400
    assert next(iter(query)) in answer.text


async def test_a_state_that_is_none_is_refused_in_the_list_of_runs(api: Api) -> None:
    for state in ("", "ended"):
        answer = await api.call("GET", "overview/runs", params={"state": state})
        assert (answer.status_code, "state" in answer.text) == (400, True)


async def events(api: Api, path: str, name: str, wanted: int, heard: asyncio.Queue[Any]) -> None:
    """Hear so many events."""
    headers = {"Authorization": TOKEN}
    async with asyncio.timeout(DEADLINE), api.http.stream("GET", f"/api/v1/{path}", headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        while wanted:
            line = await anext(lines)
            if line.startswith("data: "):
                heard.put_nowait(json.loads(line.removeprefix("data: ")))
                wanted -= 1
            else:
                assert line in ("", f"event: {name}", ": still here")


async def test_lists_are_followed_by_many_at_the_price_of_one(any_api: Api) -> None:
    api = any_api
    heard = [asyncio.Queue[Any]() for _ in range(20)]
    listeners = [asyncio.create_task(events(api, "overview/runs/events", "runs", 2, queue)) for queue in heard]
    for queue in heard:
        assert await queue.get() == {"grading_runs": [], "next": None}
    run = await api.start(run_config(3))
    for queue in heard:
        (seen,) = (await queue.get())["grading_runs"]
        assert seen["grading_run_id"] == run
        assert sum(seen["counts"].values()) == 3
    await asyncio.gather(*listeners)
    # Twenty listeners for some seconds; alone, each of them would have looked once a second.
    assert api.store.calls.count("runs") < 20


async def test_the_queue_and_the_workers_can_be_looked_at(any_api: Api) -> None:
    await any_api.start(run_config(3))
    worker = await any_api.register(hostname="grader", slots=2)
    job = await any_api.claim(worker)
    (course,) = (await any_api.data("GET", "overview/queue"))["courses"]
    assert (course["course"], course["depth"]) == ("default", 2)
    (shown,) = (await any_api.data("GET", "overview/workers"))["workers"]
    assert shown["running"] == [job["job_id"]]
    queue: asyncio.Queue[Any] = asyncio.Queue()
    await events(any_api, "overview/workers/events", "workers", 1, queue)
    assert (await queue.get())["workers"][0]["hostname"] == "grader"


async def test_the_page_and_its_files_are_served(api: Api) -> None:
    page = await api.http.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    script = await api.http.get("/dashboard/app.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    again = await api.http.get("/dashboard/app.js", headers={"If-None-Match": script.headers["Etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("/dashboard/index.html", "/dashboard/nothing.js", "/dashboard/..%2fdocs.js"):
        assert (await api.http.get(path)).status_code == 404
