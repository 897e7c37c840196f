"""Claims are fenced leases: who holds a job, who may end it, and what becomes of it when its worker is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.api.serving import SHORT_LEASE, Api, eventually, run_config, serving


@pytest.fixture
async def brief(sqlite_url: str) -> AsyncIterator[Api]:
    """An API whose leases end soon."""
    async with serving(sqlite_url, policy=SHORT_LEASE) as running:
        yield running


async def test_a_result_of_who_does_not_hold_the_job_changes_nothing(any_api: Api) -> None:
    holder, other = await any_api.register(), await any_api.register()
    run_id = await any_api.start()
    job = await any_api.claim(holder)
    before = await any_api.data("GET", f"grading_job/{job['job_id']}")
    assert (await any_api.report(other, job)).status_code == 409
    for attempt in (2, 7):
        assert (await any_api.report(holder, job | {"attempt": attempt})).status_code == 409
    assert await any_api.data("GET", f"grading_job/{job['job_id']}") == before
    assert (await any_api.report(holder, job)).status_code == 200
    assert (await any_api.run(run_id))["counts"]["succeeded"] == 1


async def test_a_result_for_a_job_that_nobody_claimed(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start()
    (job,) = (await any_api.run(run_id, jobs="all"))["jobs"]
    answer = await any_api.call("POST", f"grading_job/{job['job_id']}", {"success": True}, worker=worker)
    assert answer.status_code == 409
    assert (await any_api.run(run_id))["counts"]["queued"] == 1


async def test_the_same_result_again_gets_the_same_answer(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(2))
    job = await any_api.claim(worker)
    answers = [await any_api.report(worker, job, info=[{"stdout": "first"}]) for _ in range(3)]
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1
    contrary = await any_api.report(worker, job, success=False, info=[{"stdout": "second"}])
    assert contrary.json() == answers[0].json()
    log = await any_api.data("GET", f"grading_job/{job['job_id']}/log")
    assert log["stages"][0]["stdout"] == "first"
    (listed,) = (await any_api.data("GET", "workers"))["workers"]
    assert listed["jobs_processed"] == 1
    assert (await any_api.run(run_id))["counts"]["succeeded"] == 1


async def test_an_infrastructure_fault_reported_again_gets_the_same_answer_whatever_came_after_it(any_api: Api) -> None:
    worker, other = await any_api.register(), await any_api.register()
    await any_api.start(run_config(1))
    job = await any_api.claim(worker)
    answers = [await any_api.report(worker, job, success=False, reason="runtime_error")]
    again = await any_api.claim(other)
    answers.append(await any_api.report(worker, job, success=False, reason="runtime_error"))
    await any_api.report(other, again)
    answers.append(await any_api.report(worker, job, success=False, reason="runtime_error"))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert answers[0].json()["data"]["state"] == "queued"


async def test_results_at_the_same_time_are_one_result(any_api: Api) -> None:
    worker = await any_api.register()
    await any_api.start(run_config(1, post=True))
    job = await any_api.claim(worker)
    answers = await asyncio.gather(*(any_api.report(worker, job) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await any_api.claim(worker))["stages"][0]["image"] == "post"


async def test_results_of_old_graders_need_no_attempt(any_api: Api) -> None:
    worker = await any_api.register()
    await any_api.start()
    job = await any_api.claim(worker)
    for _ in range(2):
        answer = await any_api.call("POST", f"grading_job/{job['job_id']}", {"success": True}, worker=worker)
        assert (answer.status_code, answer.json()["data"]["state"]) == (200, "succeeded")


async def test_a_lost_answer_is_given_again_with_the_same_attempt(any_api: Api) -> None:
    worker = await any_api.register()
    await any_api.start(run_config(2))
    first = await any_api.claim(worker)
    assert await any_api.claim(worker) == first
    second = await any_api.claim(worker, params={"holding": first["job_id"]})
    assert second["job_id"] != first["job_id"]
    both = (await any_api.claim(worker, params={"slots": 5}))["jobs"]
    assert both == [first, second]
    (missing,) = (await any_api.claim(worker, params={"slots": 5, "holding": second["job_id"]}))["jobs"]
    assert missing == first
    held = f"{first['job_id']},{second['job_id']}"
    assert (await any_api.call("GET", "grading_job", worker=worker, params={"holding": held})).status_code == 498


async def test_slots_claim_up_to_so_many(any_api: Api) -> None:
    worker = await any_api.register(slots=3)
    await any_api.start(run_config(5))
    jobs = (await any_api.claim(worker, params={"slots": 3}))["jobs"]
    assert [job["stages"][0]["env"]["NET_ID"] for job in jobs] == ["s0", "s1", "s2"]
    held = ",".join(job["job_id"] for job in jobs)
    assert len((await any_api.claim(worker, params={"slots": 3, "holding": held}))["jobs"]) == 2
    only = await any_api.register()
    answer = await any_api.call("GET", "grading_job", worker=only, params={"slots": 3})
    assert answer.status_code == 498


async def test_each_student_gets_what_is_his_and_all_that_is_everybodys(any_api: Api) -> None:
    worker = await any_api.register()
    roster = [{"NET_ID": "ada", "SEED": 1}, {"NET_ID": "bob", "TERM": "spring"}, {"NET_ID": "$SEED", "SEED": "$$1"}]
    stages = [
        {"image": "one", "env": {"WHO": "$NET_ID", "NET_ID": "", "SEED": 0}, "entry_point": ["/g", "x"]},
        {"image": "two", "memory": "64m", "require": []},
    ]
    run_id = await any_api.start({"students": roster, "student_pipeline": stages, "env": {"TERM": "fall"}})
    jobs = [await any_api.claim(worker)]
    for _ in roster[1:]:
        assert (await any_api.report(worker, jobs[-1])).status_code == 200
        jobs.append(await any_api.claim(worker))
    own = [{"GRADING_RUN_ID": run_id, "GRADING_JOB_ID": job["job_id"]} for job in jobs]
    assert [[stage.pop("env") for stage in job["stages"]] for job in jobs] == [
        [
            {"TERM": "fall", "WHO": "ada", "SEED": "1", "NET_ID": "ada"} | own[0],
            {"TERM": "fall", "NET_ID": "ada", "SEED": "1"} | own[0],
        ],
        [
            {"TERM": "spring", "WHO": "bob", "SEED": "0", "NET_ID": "bob"} | own[1],
            {"TERM": "spring", "NET_ID": "bob"} | own[1],
        ],
        [
            {"TERM": "fall", "WHO": "$1", "SEED": "$1", "NET_ID": "$1"} | own[2],
            {"TERM": "fall", "NET_ID": "$1", "SEED": "$1"} | own[2],
        ],
    ]
    first = {"image": "one", "entry_point": ["/g", "x"], "enable_networking": False, "timeout": 30}
    second = {"image": "two", "enable_networking": False, "timeout": 30, "memory": "64m"}
    assert [job["stages"] for job in jobs] == [[first, second]] * 3


async def test_a_silent_workers_job_goes_to_another(brief: Api) -> None:
    silent, other = await brief.register(hostname="silent"), await brief.register()
    run_id = await brief.start()
    job = await brief.claim(silent)
    again = (await (await brief.poll(other))).json()["data"]
    assert (again["job_id"], again["attempt"]) == (job["job_id"], 2)
    assert (await brief.report(silent, job)).status_code == 409
    assert (await brief.report(other, again)).status_code == 200
    shown = await brief.data("GET", f"grading_job/{job['job_id']}")
    (lost,) = shown["attempts"]
    assert (lost["attempt"], lost["worker_id"], lost["hostname"], lost["reason"]) == (
        1,
        silent,
        "silent",
        "worker_lost",
    )
    assert (await brief.run(run_id))["state"] == "finished"


async def test_a_job_that_every_worker_loses_fails(brief: Api) -> None:
    worker = await brief.register()
    run_id = await brief.start(run_config(1, post=True))
    for attempt in (1, 2, 3):
        job = await brief.claim(worker)
        assert job["attempt"] == attempt

        async def lost() -> bool:
            return not (await brief.run(run_id))["counts"]["running"]

        await eventually(lost)
    post = await brief.claim(await brief.register())  # by now the first one is in quarantine
    assert post["stages"][0]["image"] == "post"
    assert (await brief.run(run_id))["reasons"] == {"worker_lost": 1}


async def test_heartbeats_keep_a_lease(brief: Api) -> None:
    worker, other = await brief.register(), await brief.register()
    await brief.start(run_config(2))
    kept, dropped = (await brief.claim(worker, params={"slots": 2}))["jobs"]
    poll = await brief.poll(other)
    beat = {"running": [{"job_id": kept["job_id"], "attempt": 1}]}
    while not poll.done():
        assert (await brief.data("POST", "heartbeat", beat, worker=worker))["lost"] == []
        await asyncio.wait([poll], timeout=0.05)
    assert (await poll).json()["data"]["job_id"] == dropped["job_id"]
    both = {"running": [{"job_id": job["job_id"], "attempt": 1} for job in (kept, dropped)]}
    assert (await brief.data("POST", "heartbeat", both, worker=worker))["lost"] == [dropped["job_id"]]
    assert (await brief.report(worker, kept)).status_code == 200


async def test_an_empty_heartbeat_keeps_all_leases(brief: Api) -> None:
    worker = await brief.register()
    run_id = await brief.start(run_config(2))
    jobs = (await brief.claim(worker, params={"slots": 2}))["jobs"]
    sweeps = brief.store.calls.count("expire_leases")
    while brief.store.calls.count("expire_leases") < sweeps + 3:
        await brief.data("POST", "heartbeat", worker=worker)
        await asyncio.sleep(0.05)
    assert (await brief.run(run_id))["counts"]["running"] == 2
    named: dict[str, list[str]] = {"running": []}  # which is not empty: it names none
    sweeps = brief.store.calls.count("expire_leases")
    while (await brief.run(run_id))["counts"]["running"]:
        assert brief.store.calls.count("expire_leases") < sweeps + 10
        await brief.data("POST", "heartbeat", named, worker=worker)
        await asyncio.sleep(0.05)
    assert (await brief.report(worker, jobs[0])).status_code == 409


async def test_a_silent_worker_is_listed_as_lost_until_it_is_heard_of(brief: Api) -> None:
    worker = await brief.register(hostname="quiet", slots=2, runtime="docker", version="1", labels={"zone": "a"})

    async def state() -> str:
        (listed,) = (await brief.data("GET", "workers"))["workers"]
        return str(listed["state"])

    assert await state() == "alive"

    async def lost() -> bool:
        return await state() == "lost"

    await eventually(lost)
    await brief.data("POST", "heartbeat", worker=worker)
    assert await state() == "alive"


async def test_deregistering_hands_jobs_back_at_once(any_api: Api) -> None:
    leaving, other = await any_api.register(), await any_api.register()
    await any_api.start(run_config(3))
    jobs = (await any_api.claim(leaving, params={"slots": 2}))["jobs"]
    answer = await any_api.data("DELETE", f"worker/{leaving}")
    assert sorted(answer["handed_back"]) == sorted(job["job_id"] for job in jobs)
    again = (await any_api.claim(other, params={"slots": 2}))["jobs"]
    assert [(job["job_id"], job["attempt"]) for job in again] == [(job["job_id"], 2) for job in jobs]  # in front
    assert (await any_api.report(leaving, jobs[0])).status_code == 401
    assert (await any_api.call("DELETE", f"worker/{leaving}")).status_code == 401
    assert [worker["worker_id"] for worker in (await any_api.data("GET", "workers"))["workers"]] == [other]


@pytest.mark.parametrize(("method", "path"), [("GET", "worker_register"), ("GET", "grader_register")])
async def test_registering_without_a_body(api: Api, method: str, path: str) -> None:
    answer = await api.data(method, path)
    (listed,) = (await api.data("GET", "workers"))["workers"]
    assert (listed["worker_id"], listed["slots"], listed["hostname"]) == (answer["worker_id"], 1, "127.0.0.1")
    assert answer["heartbeat"] == 10


async def test_a_job_that_kills_every_worker_fails_and_ends_its_run(any_api: Api) -> None:
    run_id = await any_api.start(run_config(1))
    for _ in range(3):
        worker = await any_api.register()
        job = await any_api.claim(worker)
        gone = await any_api.call("DELETE", f"worker/{worker}", params={"crashed": "true"})
        assert gone.json()["data"] == {"handed_back": [job["job_id"]]}
    run = await any_api.run(run_id)
    assert (run["state"], run["reasons"]) == ("finished", {"worker_lost": 1})
    assert (await any_api.call("DELETE", f"worker/{worker}", params={"crashed": "yes"})).status_code == 400


async def test_registering_twice_is_two_workers(api: Api) -> None:
    assert await api.register(hostname="a") != await api.register(hostname="a")
