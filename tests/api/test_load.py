"""Large requests do not hold up small ones. Counted, not timed: who works where, and who was answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broadway_api import json_body
from broadway_api.intake import Intake
from tests.api.serving import DEADLINE, Api, run_config

STUDENTS = 10_000


class HeldWork:
    """A function that waits to be let go, and where it ran."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.threads: list[int] = []
        self.began = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.threads.append(threading.get_ident())
        self.began.set()
        if threading.get_ident() != threading.main_thread().ident:  # a wait there would only hang the test
            assert self.may_go_on.wait(DEADLINE)
        return self.function(*arguments, **named)


@pytest.fixture
def held_intake(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldWork]:
    held = HeldWork(Intake.plan)
    monkeypatch.setattr(Intake, "plan", lambda *arguments, **named: held(*arguments, **named))
    yield held
    held.may_go_on.set()


@pytest.fixture
def held_parse(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldWork]:
    held = HeldWork(json_body.parse)
    monkeypatch.setattr(json_body, "parse", held)
    yield held
    held.may_go_on.set()


def large_class() -> bytes:
    students = [{"NET_ID": f"student{number}", "SECTION": number % 9} for number in range(STUDENTS)]
    return json.dumps(run_config() | {"students": students, "env": {"WHO": "x"}}).encode()


async def test_a_large_class_is_read_beside_the_loop(api: Api, held_intake: HeldWork) -> None:
    creating = asyncio.create_task(api.call("POST", "grading_run", large_class()))
    assert await asyncio.to_thread(held_intake.began.wait, DEADLINE)
    for _ in range(3):
        await api.ping()
    assert not creating.done()
    held_intake.may_go_on.set()
    run_id = (await creating).json()["data"]["grading_run_id"]
    assert threading.main_thread().ident not in held_intake.threads
    assert (await api.data("POST", f"grading_run/{run_id}"))["state"] == "students"
    assert (await api.run(run_id))["counts"]["queued"] == STUDENTS


async def test_a_large_result_is_read_beside_the_loop(api: Api, held_parse: HeldWork) -> None:
    worker = await api.register()
    held_parse.may_go_on.set()
    await api.start()
    job = await api.claim(worker)
    held_parse.may_go_on.clear()
    held_parse.began.clear()
    held_parse.threads.clear()
    reporting = asyncio.create_task(api.report(worker, job, info=[{"stdout": "x" * 1_000_000}]))
    assert await asyncio.to_thread(held_parse.began.wait, DEADLINE)
    await api.ping()
    assert not reporting.done()
    held_parse.may_go_on.set()
    assert (await reporting).status_code == 200
    assert threading.main_thread().ident not in held_parse.threads


async def test_small_bodies_need_no_thread(api: Api, held_intake: HeldWork) -> None:
    await api.create()
    assert held_intake.threads == [threading.main_thread().ident]


async def test_others_are_answered_while_a_large_class_is_created_and_started(api: Api) -> None:
    answered = 0
    run_id = ""
    for path in ("grading_run", "grading_run/{}"):
        body = large_class() if not run_id else None
        task = asyncio.create_task(api.call("POST", path.format(run_id), body))
        while not task.done():
            await api.ping()
            answered += 1
        run_id = run_id or task.result().json()["data"]["grading_run_id"]
        assert task.result().status_code == 200
    assert answered >= 5
    worker = await api.register()
    jobs = (await api.claim(worker, params={"slots": 1000}))["jobs"]
    assert [job["stages"][0]["env"]["NET_ID"] for job in jobs] == [f"student{number}" for number in range(1000)]


async def test_ten_thousand_faults_are_refused_beside_the_loop(api: Api, held_intake: HeldWork) -> None:
    body = json.dumps(run_config() | {"students": [{"A": "$NOPE"}] * STUDENTS}).encode()
    refusing = asyncio.create_task(api.call("POST", "grading_run", body))
    assert await asyncio.to_thread(held_intake.began.wait, DEADLINE)
    await api.ping()
    held_intake.may_go_on.set()
    told = (await refusing).json()["data"]
    assert told["errors"][0]["path"] == "$.students[0].A"
    assert "create_run" not in api.store.calls


async def test_the_roster_of_a_large_class_is_handed_out(api: Api) -> None:
    worker = await api.register()
    body = json.loads(large_class()) | {"pre_processing_pipeline": [{"image": "pre"}]}
    await api.start(body)
    job = await api.claim(worker)
    assert job["students"] == body["students"]
