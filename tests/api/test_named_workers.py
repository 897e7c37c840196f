"""Graders of the course protocol over HTTP, from its description."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from broadway_api.policy import Policy
from tests.api.course_protocol import World, report, world
from tests.api.serving import eventually, run_config, serving


@pytest.fixture
async def hasty(any_store_url: str) -> AsyncIterator[World]:
    """A cluster in which silence is noticed soon."""
    policy = Policy(heartbeat_interval=1, lease=timedelta(seconds=2))
    async with serving(any_store_url, policy=policy) as api, world(api) as both:
        yield both


async def test_registering_answers_with_the_interval_of_heartbeats(there: World) -> None:
    assert await there.grader.data("POST", "worker/a-b_1", {"hostname": "eniac"}) == {"heartbeat": 10}
    (worker,) = (await there.api.data("GET", "workers"))["workers"]
    assert (worker["hostname"], worker["slots"], worker["labels"]) == ("eniac", 1, {"protocol": "course"})


async def test_an_id_is_had_by_one_worker_that_is_alive(there: World) -> None:
    await there.register("w")
    again = await there.grader.call("POST", "worker/w", {"hostname": "univac"})
    assert (again.status_code, again.json()["data"]["message"]) == (400, "worker id 'w' already exists")


@pytest.mark.parametrize("body", [b"", b"[", {}, {"hostname": 3}, {"hostname": "x", "slots": 4}])
async def test_a_faulty_registration_is_refused(here: World, body: Any) -> None:
    assert (await here.grader.call("POST", "worker/w", body)).status_code == 400
    assert (await here.api.data("GET", "workers"))["workers"] == []


CALLS = [
    ("POST", "worker/w", {"hostname": "x"}),
    ("GET", "grading_job/w", None),
    ("POST", "grading_job/w", report("1234")),
    ("POST", "heartbeat/w", b""),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_only_the_cluster_and_its_workers_may_call(here: World, method: str, path: str, body: Any) -> None:
    async def told(authorization: str | None) -> tuple[int, str]:
        headers = {} if authorization is None else {"Authorization": authorization}
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        answer = await here.nobody.http.request(method, f"/api/v1/{path}", headers=headers, content=content)
        return answer.status_code, answer.json()["data"]["message"]

    assert await told(f"Bearer {here.admin.token}") == (401, "invalid token")
    assert await told("Bearer wrong") == (401, "invalid token")
    assert await told(f"Bearer  {here.grader.token}") == (401, "invalid token format")
    assert (await told(None))[0] == 401
    token = (await here.api.data("POST", "tokens", {"role": "worker"}))["token"]
    assert (await told(f"Bearer {token}"))[1] in ("worker not found", "") if path != "worker/w" else True


@pytest.mark.parametrize(("method", "path", "body"), CALLS[1:])
async def test_an_unknown_worker_is_told_so(here: World, method: str, path: str, body: Any) -> None:
    answer = await here.grader.call(method, path, body)
    assert (answer.status_code, answer.json()["data"]["message"]) == (401, "worker not found")


async def test_an_empty_queue_is_a_498(there: World) -> None:
    await there.register("w")
    empty = await there.grader.call("GET", "grading_job/w")
    assert (empty.status_code, empty.json()["data"]["message"]) == (498, "no jobs available")


async def test_a_job_has_nothing_that_a_released_grader_does_not_know(there: World) -> None:
    await there.register("w")
    run_id = await there.grade({"student_pipeline": [{"image": "a", "memory": "2g", "logs": False}, {"image": "b"}]})
    job = await there.poll("w")
    env = {"netid": "s0", "GRADING_RUN_ID": run_id, "GRADING_JOB_ID": job["grading_job_id"]}
    assert set(job) == {"grading_job_id", "stages"}
    assert job["stages"] == [
        {"image": "a", "memory": "2g", "logs": False, "networking": False, "timeout": 30, "env": env},
        {"image": "b", "networking": False, "timeout": 30, "env": env},
    ]


async def test_one_worker_may_empty_the_queue_without_reporting_anything(there: World) -> None:
    await there.register("w")
    run_id = await there.grade(students=10)
    jobs = [await there.poll("w") for _ in range(10)]
    assert len({job["grading_job_id"] for job in jobs}) == 10
    assert await there.poll("w") is None
    assert (await there.api.run(run_id))["counts"]["running"] == 10
    for job in reversed(jobs):
        assert (await there.report("w", job["grading_job_id"])).status_code == 200
    assert (await there.api.run(run_id))["state"] == "finished"


async def test_a_job_whose_hand_out_got_lost_comes_round_again(hasty: World) -> None:
    await hasty.register("w")
    await hasty.grade()
    lost = await hasty.poll("w")  # which never arrived
    assert await hasty.poll("w") is None

    async def is_given_again() -> bool:
        await hasty.grader.data("POST", "heartbeat/w", b"")  # its thread of heartbeats goes on
        job = await hasty.poll("w")
        return job is not None and job["grading_job_id"] == lost["grading_job_id"]

    await eventually(is_given_again)


async def test_heartbeats_keep_the_job_that_is_worked_on(hasty: World) -> None:
    await hasty.register("w")
    run_id = await hasty.grade()
    job = await hasty.poll("w")
    other = await hasty.api.register()
    first = (await hasty.api.run(run_id, jobs="all"))["jobs"][0]["started_at"]

    async def three_leases_later() -> bool:
        await hasty.grader.data("POST", "heartbeat/w", b"")
        await hasty.api.data("POST", "heartbeat", worker=other)
        worker = next(w for w in (await hasty.api.data("GET", "workers"))["workers"] if w["running"])
        return bool(worker["last_seen"] > first and seconds(worker["last_seen"]) - seconds(first) > 6)

    await eventually(three_leases_later)
    assert (await hasty.report("w", job["grading_job_id"])).status_code == 200
    assert (await hasty.api.run(run_id, jobs="all"))["jobs"][0]["attempt"] == 1


def seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


async def test_a_silent_worker_may_come_back_and_finds_nothing_of_its_former_life(hasty: World) -> None:
    await hasty.register("w")
    run_id = await hasty.grade()
    job = await hasty.poll("w")

    async def is_admitted() -> bool:
        answer = await hasty.grader.call("POST", "worker/w", {"hostname": "eniac"})
        return answer.status_code == 200

    await eventually(is_admitted)
    assert (await hasty.api.run(run_id))["counts"]["queued"] == 1
    late = await hasty.report("w", job["grading_job_id"])
    assert late.status_code == 400
    assert (await hasty.api.run(run_id))["counts"]["queued"] == 1
    again = await hasty.poll("w")
    assert again["grading_job_id"] == job["grading_job_id"]
    assert (await hasty.report("w", job["grading_job_id"])).status_code == 200
    (attempt,) = (await hasty.api.data("GET", f"grading_job/{job['grading_job_id']}"))["attempts"]
    assert attempt["reason"] == "worker_lost"


async def test_a_worker_cannot_report_what_another_one_holds(there: World) -> None:
    for name in ("a", "b"):
        await there.register(name)
    run_id = await there.grade()
    job = await there.poll("a")
    assert (await there.report("b", job["grading_job_id"])).status_code == 400
    assert (await there.api.run(run_id))["counts"]["running"] == 1
    ours = await there.api.register()
    theirs = await there.api.call(
        "POST", f"grading_job/{job['grading_job_id']}", {"success": True, "info": []}, worker=ours
    )
    assert theirs.status_code == 409
    assert (await there.report("a", job["grading_job_id"])).status_code == 200


async def test_a_result_may_be_repeated_and_counts_once(there: World) -> None:
    await there.register("w")
    run_id = await there.grade(students=2)
    job = await there.poll("w")
    for _ in range(3):
        assert (await there.report("w", job["grading_job_id"])).status_code == 200
    assert (await there.report("w", job["grading_job_id"], success=False)).status_code == 200
    assert (await there.api.run(run_id))["counts"]["succeeded"] == 1
    (worker,) = (await there.api.data("GET", "workers"))["workers"]
    assert worker["jobs_processed"] == 1


@pytest.mark.parametrize("job_id", ["1234", "0" * 24, "", "ü\0"])
async def test_a_result_of_an_unknown_job_is_refused(there: World, job_id: str) -> None:
    await there.register("w")
    assert (await there.report("w", job_id)).status_code == 400


@pytest.mark.parametrize(
    "odd",
    [
        {"logs": {}},
        {"logs": None},
        {"logs": {"stdout": 3, "stderr": None, "more": "x"}},
        {"logs": {"stdout": "\ud800 \0 \x1b[31m", "stderr": "e"}},
        {"results": None},
        {"results": []},
        {"results": [None, 3, {"data": []}]},
        {"results": [{"$where": {"a.b": 1}}]},
        {"extra": 1},
    ],
)
async def test_no_odd_report_leaves_a_job_unfinished(there: World, odd: dict[str, Any]) -> None:
    await there.register("w")
    run_id = await there.grade()
    job = await there.poll("w")
    answer = await there.report("w", job["grading_job_id"], success=False, **odd)
    assert answer.status_code == 200, answer.text
    end = await there.api.run(run_id)
    assert (end["state"], end["reasons"]) == ("finished", {"stage_failed": 1})
    assert (await there.admin.call("GET", f"grading_job_log/cs241/{job['grading_job_id']}")).status_code == 200


async def test_a_log_of_twenty_megabytes_is_kept(there: World) -> None:
    await there.register("w")
    await there.grade()
    job = await there.poll("w")
    logs = {"stdout": "x" * 20_000_000, "stderr": ""}
    assert (await there.report("w", job["grading_job_id"], logs=logs)).status_code == 200
    assert await there.admin.data("GET", f"grading_job_log/cs241/{job['grading_job_id']}") == logs


async def test_a_timeout_is_told_as_one(here: World) -> None:
    await here.register("w")
    run_id = await here.grade()
    job = await here.poll("w")
    results = [{"success": False, "killed": True, "data": {"ExitCode": 137}}]
    await here.report("w", job["grading_job_id"], success=False, results=results)
    assert (await here.api.run(run_id))["reasons"] == {"timeout": 1}


async def test_one_queue_serves_the_workers_of_both_protocols(there: World) -> None:
    await there.register("w")
    ours = await there.api.register()
    run_id = await there.grade(students=4)
    for _ in range(2):
        await there.report("w", (await there.poll("w"))["grading_job_id"])
        await there.api.report(ours, await there.api.claim(ours))
    assert (await there.api.run(run_id))["counts"]["succeeded"] == 4


async def test_a_job_of_our_own_protocol_is_handed_out_in_theirs(there: World) -> None:
    await there.register("w")
    stage = {"image": "a", "entry_point": ["make"], "host_name": "h", "enable_networking": True, "memory": 2**26}
    await there.api.start(run_config(student_pipeline=[stage]))
    ((handed_out),) = (await there.poll("w"))["stages"]
    del handed_out["env"]
    assert handed_out == {
        "image": "a",
        "entrypoint": ["make"],
        "hostname": "h",
        "networking": True,
        "memory": "67108864",
        "timeout": 30,
    }


async def test_a_job_that_asks_for_more_than_they_know_waits_for_one_of_ours(there: World) -> None:
    await there.register("w")
    run_id = await there.api.start(run_config(student_pipeline=[{"image": "a", "pids": 10}]))
    assert await there.poll("w") is None
    ours = await there.api.register()
    assert (await there.api.claim(ours))["stages"][0]["pids"] == 10
    assert (await there.api.run(run_id))["counts"]["running"] == 1


async def test_a_worker_may_be_called_as_our_ids_look(there: World) -> None:
    name = "0123456789abcdef01234567"
    await there.register(name)
    await there.grade()
    job = await there.poll(name)
    assert (await there.report(name, job["grading_job_id"])).status_code == 200
    assert await there.poll(name) is None
    await there.grader.data("POST", f"heartbeat/{name}", b"")
