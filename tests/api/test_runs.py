"""A run from its creation to its end, as a course and its graders see it; over each kind of store."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from tests.api.serving import Api, run_config, sample


async def grade(api: Api, worker: str, *failing: str) -> list[str]:
    """Take jobs and end them until there are none; return the names of those that ran, in order."""
    ran = []
    while (answer := await api.call("GET", "grading_job", worker=worker)).status_code == 200:
        job = answer.json()["data"]
        name = job["stages"][0]["env"].get("NET_ID") or job["stages"][0]["image"]
        ran.append(name)
        reason = None if name not in failing else "timeout"
        assert (await api.report(worker, job, success=not reason, reason=reason)).status_code == 200
    assert answer.status_code == 498
    return ran


@pytest.mark.parametrize(
    ("config", "failing", "ran", "state", "counts"),
    [
        (run_config(2), [], ["s0", "s1"], "finished", {"succeeded": 2}),
        (run_config(2), ["s0", "s1"], ["s0", "s1"], "finished", {"failed": 2}),
        (run_config(1, pre=True, post=True), [], ["pre", "s0", "post"], "finished", {"succeeded": 3}),
        (run_config(2, pre=True, post=True), ["pre"], ["pre"], "failed", {"failed": 1, "cancelled": 3}),
        (run_config(1, post=True), ["s0"], ["s0", "post"], "finished", {"succeeded": 1, "failed": 1}),
        (run_config(1, post=True), ["post"], ["s0", "post"], "failed", {"succeeded": 1, "failed": 1}),
    ],
    ids=["students", "all-fail", "three-phases", "pre-fails", "post-after-failures", "post-fails"],
)
async def test_a_run_goes_through_its_phases(
    any_api: Api, config: Any, failing: list[str], ran: list[str], state: str, counts: dict[str, int]
) -> None:
    worker = await any_api.register()
    run_id = await any_api.create(config)
    before = await any_api.run(run_id)
    assert (before["state"], before["success"], before["started_at"]) == ("ready", None, None)
    assert before["counts"]["waiting"] == sum(before["counts"].values())
    started = await any_api.data("POST", f"grading_run/{run_id}")
    assert started["state"] == ("pre_processing" if "pre" in ran else "students")
    assert await grade(any_api, worker, *failing) == ran
    after = await any_api.run(run_id)
    assert (after["state"], after["success"], after["eta_seconds"]) == (state, state == "finished", None)
    assert {name: number for name, number in after["counts"].items() if number} == counts
    reasons = {"timeout": len(failing)} | ({"cancelled": counts["cancelled"]} if "cancelled" in counts else {})
    assert after["reasons"] == {name: number for name, number in reasons.items() if number}
    times = [datetime.fromisoformat(after[name]) for name in ("created_at", "started_at", "finished_at")]
    assert times == sorted(times)
    assert (await any_api.call("POST", f"grading_run/{run_id}")).status_code == 400


async def test_the_time_left_is_told_once_a_student_is_through(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(3))
    assert (await any_api.run(run_id))["eta_seconds"] is None
    job = await any_api.claim(worker)
    await any_api.report(worker, job)
    assert (await any_api.run(run_id))["eta_seconds"] in range(60)


async def test_only_one_phase_is_open_at_a_time(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(2, pre=True, post=True))
    pre = await any_api.claim(worker)
    assert pre["students"] == [{"NET_ID": "s0"}, {"NET_ID": "s1"}]
    assert (
        await any_api.call("GET", "grading_job", worker=worker, params={"holding": pre["job_id"]})
    ).status_code == 498
    await any_api.report(worker, pre)
    students = (await any_api.claim(worker, params={"slots": 5}))["jobs"]
    assert len(students) == 2
    assert all("students" not in job for job in students)
    await any_api.report(worker, students[0])
    held = students[1]["job_id"]
    assert (await any_api.call("GET", "grading_job", worker=worker, params={"holding": held})).status_code == 498
    assert (await any_api.run(run_id))["post_processing_job"]["state"] == "waiting"
    await any_api.report(worker, students[1])
    post = await any_api.claim(worker)
    assert post["students"] == pre["students"]


async def test_no_student_sees_anothers_values(any_api: Api) -> None:
    worker = await any_api.register()
    roster = [{"NET_ID": f"s{number}", f"ONLY_{number}": f"secret-{number}"} for number in range(4)]
    await any_api.start(run_config(env={"WHO": "$NET_ID", "A": "run"}) | {"students": roster})
    jobs = (await any_api.claim(worker, params={"slots": 4}))["jobs"]
    for number, job in enumerate(jobs):
        (stage,) = job["stages"]
        assert stage["env"] == {
            "WHO": f"s{number}",
            "A": "run",
            "NET_ID": f"s{number}",
            f"ONLY_{number}": f"secret-{number}",
            "GRADING_RUN_ID": stage["env"]["GRADING_RUN_ID"],
            "GRADING_JOB_ID": job["job_id"],
        }


async def test_a_retried_job_keeps_its_last_reports_log(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start()
    for attempt in (1, 2, 3):
        job = await any_api.claim(worker)
        assert job["attempt"] == attempt
        info = [{"stdout": f"attempt {attempt}", "reason": "runtime_error"}]
        answer = await any_api.report(worker, job, success=False, info=info)
        assert answer.json()["data"]["state"] == ("failed" if attempt == 3 else "queued")
        log = await any_api.data("GET", f"grading_job/{job['job_id']}/log")
        assert (log["attempt"], log["stages"][0]["stdout"]) == (attempt, f"attempt {attempt}")
    shown = await any_api.data("GET", f"grading_job/{job['job_id']}")
    assert (shown["reason"], [entry["attempt"] for entry in shown["attempts"]]) == ("runtime_error", [1, 2])
    assert (await any_api.run(run_id))["state"] == "finished"
    assert (await any_api.data("GET", f"grading_job/{job['job_id']}/log", params={"stage": 7}))["stages"] == []


async def test_pages_of_jobs(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(7, pre=True, post=True))
    await any_api.report(worker, await any_api.claim(worker))
    await any_api.report(worker, await any_api.claim(worker), success=False, reason="out_of_memory")
    pages, after = [], None
    while True:
        page = await any_api.run(run_id, jobs="all", limit=4, **({} if after is None else {"after": after}))
        pages.append([job["student"]["NET_ID"] if job["student"] else job["type"] for job in page["jobs"]])
        after = page["next"]
        if after is None:
            break
    assert pages == [["pre_processing", "s0", "s1", "s2"], ["s3", "s4", "s5", "s6"], ["post_processing"]]
    for word, number in [("queued", 6), ("failed", 1), ("succeeded", 1), ("waiting", 1), ("unfinished", 7)]:
        assert len((await any_api.run(run_id, jobs=word))["jobs"]) == number, word
    (failed,) = (await any_api.run(run_id, jobs="failed"))["jobs"]
    assert (failed["reason"], failed["worker_id"], failed["attempt"]) == ("out_of_memory", worker, 1)
    assert len((await any_api.run(run_id, jobs="all"))["jobs"]) == 9


async def test_pages_of_runs_newest_first(any_api: Api) -> None:
    made = [await any_api.create() for _ in range(5)]
    await any_api.data("POST", f"grading_run/{made[1]}")
    page = await any_api.data("GET", "grading_run", params={"limit": 3})
    assert [run["grading_run_id"] for run in page["grading_runs"]] == made[:1:-1]
    rest = await any_api.data("GET", "grading_run", params={"limit": 3, "after": page["next"]})
    assert [run["grading_run_id"] for run in rest["grading_runs"]] == made[1::-1]
    assert rest["next"] is None
    for params, number in [({"state": "students"}, 1), ({"state": "ready"}, 4), ({"course": "default"}, 5)]:
        assert len((await any_api.data("GET", "grading_run", params=params))["grading_runs"]) == number
    assert (await any_api.data("GET", "grading_run", params={"course": "no\0ne"}))["grading_runs"] == []


async def test_a_key_creates_one_run(any_api: Api) -> None:
    key = {"Idempotency-Key": "mp1-tuesday"}
    config = sample("run_config")
    made = await asyncio.gather(*(any_api.create(config, headers=key) for _ in range(8)))
    assert len(set(made)) == 1
    assert await any_api.create(config, headers=key) == made[0]
    other = await any_api.call("POST", "grading_run", run_config(), headers=key)
    assert other.status_code == 422
    assert "mp1-tuesday" in other.json()["data"]["message"]
    await any_api.data("POST", f"grading_run/{made[0]}")
    assert await any_api.create(config, headers=key) == made[0]
    assert len((await any_api.data("GET", "grading_run"))["grading_runs"]) == 1
    assert sum((await any_api.run(made[0]))["counts"].values()) == 4


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "tab\there"])
async def test_a_malformed_key_creates_nothing(api: Api, key: str) -> None:
    answer = await api.call("POST", "grading_run", run_config(), headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert "create_run" not in api.store.calls


async def test_many_workers_grade_each_student_once(any_api: Api) -> None:
    workers = [await any_api.register() for _ in range(5)]
    run_id = await any_api.start(run_config(40, post=True))
    ran = [name for names in await asyncio.gather(*(grade(any_api, worker) for worker in workers)) for name in names]
    assert sorted(ran) == sorted([f"s{number}" for number in range(40)] + ["post"])
    status = await any_api.run(run_id)
    assert (status["state"], status["counts"]["succeeded"]) == ("finished", 41)
    listed = (await any_api.data("GET", "workers"))["workers"]
    assert sum(worker["jobs_processed"] for worker in listed) == 41
