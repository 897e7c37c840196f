"""Graders of the course protocol over WebSocket, from its description, with a plain WebSocket client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from broadway_api.policy import Policy
from tests.api.course_protocol import World, closed_with, hear, report, say, world
from tests.api.serving import eventually, run_config, serving


async def workers(there: World) -> list[Any]:
    return list((await there.api.data("GET", "workers"))["workers"])


@pytest.mark.parametrize("token", ["", "wrong", "admin-token-of-cs241"])
async def test_a_wrong_token_is_closed_with_1008(here: World, token: str) -> None:
    async with here.socket("w", token=token) as connection:
        assert await closed_with(connection) == 1008


async def test_registering_is_acknowledged(there: World) -> None:
    async with there.connected("w"):
        (worker,) = await workers(there)
        assert (worker["hostname"], worker["slots"], worker["labels"]) == ("eniac", 1, {"protocol": "course"})
    await eventually_no_worker(there)


async def eventually_no_worker(there: World) -> None:
    async def none_left() -> bool:
        return await workers(there) == []

    await eventually(none_left)


async def test_jobs_are_pushed_one_at_a_time(there: World) -> None:
    async with there.connected("w") as connection:
        run_id = await there.grade(students=3)
        for done in range(3):
            job = await hear(connection)
            assert set(job) == {"grading_job_id", "stages"}
            assert (await there.api.run(run_id))["counts"]["running"] == 1
            await say(connection, "job_result", report(job["grading_job_id"], success=done != 1))

    async def is_over() -> bool:
        return bool((await there.api.run(run_id))["state"] == "finished")

    await eventually(is_over)  # the last result was sent just before the connection was closed
    counts = (await there.api.run(run_id))["counts"]
    assert (counts["succeeded"], counts["failed"]) == (2, 1)


async def test_a_stage_has_nothing_that_makes_a_released_grader_end(here: World) -> None:
    stage = {"image": "a", "logs": False, "cpuset_cpus": "0", "memory": "1g", "entrypoint": ["x"], "hostname": "h"}
    async with here.connected("w") as connection:
        await here.grade({"student_pipeline": [stage]})
        (pushed,) = (await hear(connection))["stages"]
    assert set(pushed) == {"image", "memory", "entrypoint", "hostname", "env", "networking", "timeout"}


async def test_what_was_queued_before_is_pushed_at_once(there: World) -> None:
    await there.grade()
    async with there.connected("w") as connection:
        job = await hear(connection)
        await say(connection, "job_result", report(job["grading_job_id"]))

        async def is_done() -> bool:
            return (await there.admin.call("GET", f"grading_job_log/cs241/{job['grading_job_id']}")).status_code == 200

        await eventually(is_done)


async def test_a_connection_that_drops_returns_its_job_at_once(there: World) -> None:
    run_id = await there.grade()
    async with there.connected("w") as connection:
        job = await hear(connection)
        connection.transport.abort()

    async def is_queued_again() -> bool:
        return bool((await there.api.run(run_id))["counts"]["queued"] == 1)

    await eventually(is_queued_again)
    async with there.connected("w") as connection:
        assert await hear(connection) == job
        await say(connection, "job_result", report(job["grading_job_id"]))

        async def is_over() -> bool:
            return bool((await there.api.run(run_id))["state"] == "finished")

        await eventually(is_over)
    (attempt,) = (await there.api.data("GET", f"grading_job/{job['grading_job_id']}"))["attempts"]
    assert attempt["reason"] == "worker_lost"


async def test_an_id_that_is_alive_is_refused_with_1002(there: World) -> None:
    async with there.connected("w"), there.socket("w") as second:
        await say(second, "register", {"hostname": "univac"})
        assert await hear(second) == {"success": False}
        assert await closed_with(second) == 1002
    await eventually_no_worker(there)


async def test_an_id_may_come_back_the_moment_its_connection_is_closed(there: World) -> None:
    for _ in range(3):
        async with there.connected("w"):
            pass


async def test_a_worker_over_http_has_its_id_here_too(here: World) -> None:
    await here.register("w")
    async with here.socket("w") as connection:
        await say(connection, "register", {"hostname": "univac"})
        assert await hear(connection) == {"success": False}
        assert await closed_with(connection) == 1002


@pytest.mark.parametrize(
    "message",
    [
        "i'm not json",
        "",
        b"\xff\xfe",
        "[]",
        "{}",
        '{"type": "dance", "args": {}}',
        '{"type": "register", "args": {}}',
        '{"type": "register", "args": {"hostname": 3}}',
        '{"type": "register", "args": {"hostname": "x"}, "more": 1}',
        '{"type": "job_result", "args": {}}',
        '{"type": "job_result", "args": {"grading_job_id": "x", "success": "yes"}}',
    ],
)
async def test_what_cannot_be_read_is_closed_with_1011(here: World, message: str | bytes) -> None:
    async with here.socket("w") as connection:
        await connection.send(message)
        assert await closed_with(connection) == 1011


async def test_a_result_before_registering_is_closed_with_1002(here: World) -> None:
    async with here.socket("w") as connection:
        await say(connection, "job_result", report("someid"))
        assert await closed_with(connection) == 1002


async def test_registering_twice_is_closed_with_1002(here: World) -> None:
    async with here.connected("w") as connection:
        await say(connection, "register", {"hostname": "eniac"})
        assert await closed_with(connection) == 1002


@pytest.mark.parametrize("job_id", ["no_such_id", "0" * 24])
async def test_a_result_of_an_unknown_job_is_closed_with_1002(there: World, job_id: str) -> None:
    async with there.connected("w") as connection:
        await say(connection, "job_result", report(job_id))
        assert await closed_with(connection) == 1002


async def test_a_result_that_is_repeated_does_no_harm_to_the_next_job(there: World) -> None:
    run_id = await there.grade(students=2)
    async with there.connected("w") as connection:
        first = await hear(connection)
        for _ in range(2):
            await say(connection, "job_result", report(first["grading_job_id"]))
        second = await hear(connection)
        await say(connection, "job_result", report(first["grading_job_id"], success=False))
        await say(connection, "job_result", report(second["grading_job_id"]))

        async def is_over() -> bool:
            return bool((await there.api.run(run_id))["state"] == "finished")

        await eventually(is_over)
    assert (await there.api.run(run_id))["counts"]["succeeded"] == 2


async def test_a_result_of_a_job_that_was_taken_away_is_passed_over(there: World) -> None:
    first_run = await there.grade()
    async with there.connected("w") as connection:
        job = await hear(connection)
        await there.api.data("POST", f"grading_run/{first_run}/cancel")
        second_run = await there.grade()
        await say(connection, "job_result", report(job["grading_job_id"]))
        other = await hear(connection)
        assert other["grading_job_id"] != job["grading_job_id"]
        await say(connection, "job_result", report(other["grading_job_id"]))

        async def is_over() -> bool:
            return bool((await there.api.run(second_run))["state"] == "finished")

        await eventually(is_over)
    assert (await there.api.run(first_run))["counts"]["cancelled"] == 1


async def test_one_worker_cannot_report_anothers_job(there: World) -> None:
    run_id = await there.grade()
    async with there.connected("a") as first:
        job = await hear(first)
        async with there.connected("b") as second:
            await say(second, "job_result", report(job["grading_job_id"], success=False))
            await (await second.ping())  # by now that was read
            await say(first, "job_result", report(job["grading_job_id"]))

            async def is_over() -> bool:
                return bool((await there.api.run(run_id))["state"] == "finished")

            await eventually(is_over)
    assert (await there.api.run(run_id))["counts"]["succeeded"] == 1


async def test_workers_of_all_kinds_share_one_queue(there: World) -> None:
    run_id = await there.grade(students=3)
    async with there.connected("socket") as connection:
        pushed = await hear(connection)
        await there.register("http")
        polled = await there.poll("http")
        ours = await there.api.register()
        claimed = await there.api.claim(ours)
        await say(connection, "job_result", report(pushed["grading_job_id"]))
        await there.report("http", polled["grading_job_id"])
        await there.api.report(ours, claimed)

        async def is_over() -> bool:
            return bool((await there.api.run(run_id))["state"] == "finished")

        await eventually(is_over)
    assert (await there.api.run(run_id))["counts"]["succeeded"] == 3


async def test_a_job_that_asks_for_more_than_they_know_is_not_pushed(here: World) -> None:
    async with here.connected("w") as connection:
        await here.api.start(run_config(student_pipeline=[{"image": "a", "user": "1000"}]))
        plain = await here.api.start()
        job = await hear(connection)
    assert job["stages"][0]["env"]["GRADING_RUN_ID"] == plain


@pytest.fixture
async def hasty(any_store_url: str) -> AsyncIterator[World]:
    policy = Policy(heartbeat_interval=1, lease=timedelta(seconds=2))
    async with serving(any_store_url, policy=policy) as api, world(api) as both:
        yield both


async def test_answers_to_our_pings_keep_a_job_that_takes_longer_than_a_lease(hasty: World) -> None:
    run_id = await hasty.grade()
    async with hasty.connected("w") as connection:  # whose own pings come every 20 s
        job = await hear(connection)
        begun = (await workers(hasty))[0]["last_seen"]

        async def was_heard_for_three_leases() -> bool:
            (worker,) = await workers(hasty)
            return _seconds(worker["last_seen"]) - _seconds(begun) > 6

        await eventually(was_heard_for_three_leases)
        await say(connection, "job_result", report(job["grading_job_id"]))

        async def is_over() -> bool:
            return bool((await hasty.api.run(run_id))["state"] == "finished")

        await eventually(is_over)
    assert (await hasty.api.run(run_id, jobs="all"))["jobs"][0]["attempt"] == 1


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


async def test_a_ping_of_theirs_is_a_heartbeat(there: World) -> None:
    async with there.connected("w") as connection:
        (before,) = await workers(there)

        async def was_seen_since() -> bool:
            await (await connection.ping())
            (now,) = await workers(there)
            return bool(now["last_seen"] > before["last_seen"])

        await eventually(was_seen_since)


async def test_a_stopping_api_says_so_and_takes_the_job_back_for_free(any_store_url: str) -> None:
    async with serving(any_store_url) as api, world(api) as there:
        run_id = await there.grade()
        async with there.connected("w") as connection:
            job = await hear(connection)
            api.stop.set()
            assert await closed_with(connection) == 1001
    async with serving(any_store_url) as api:
        assert (await api.run(run_id))["counts"]["queued"] == 1
        again = await api.claim(await api.register())
        assert (again["job_id"], again["attempt"]) == (job["grading_job_id"], 2)
        assert (await api.data("GET", f"grading_job/{job['grading_job_id']}"))["attempts"][0]["reason"] is None


async def test_a_message_that_is_too_large_ends_the_connection_and_not_the_api(here: World) -> None:
    run_id = await here.grade()
    async with here.connected("w") as connection:
        job = await hear(connection)
        logs = {"stdout": "x" * (33 * 1024 * 1024), "stderr": ""}
        with contextlib.suppress(Exception):
            await say(connection, "job_result", report(job["grading_job_id"], logs=logs))
        assert await closed_with(connection) in (1009, 1006)

    async def is_queued_again() -> bool:
        return bool((await here.api.run(run_id))["counts"]["queued"] == 1)

    await eventually(is_queued_again)


async def test_many_workers_at_once(here: World) -> None:
    run_id = await here.grade(students=40)

    async def work(name: str) -> None:
        async with here.connected(name) as connection:
            while True:
                job = json.loads(await connection.recv())
                await say(connection, "job_result", report(job["grading_job_id"]))

    async def is_over() -> bool:
        return bool((await here.api.run(run_id))["state"] == "finished")

    working = [asyncio.create_task(work(f"w{number}")) for number in range(8)]
    await eventually(is_over)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    assert (await here.api.run(run_id))["counts"]["succeeded"] == 40
