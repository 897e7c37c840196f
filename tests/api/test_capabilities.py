"""Labels, requirements and priorities over HTTP: who gets what, and what is said of what nobody can run."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from broadway_api.policy import Policy
from tests.api.serving import Api, Json, eventually, run_config, serving

GPU = {"image": "grade", "require": ["gpu", "arch=arm64"]}


def gpu_config(students: int = 1, **changes: Any) -> Json:
    return run_config(students, student_pipeline=[GPU]) | changes


async def test_jobs_go_to_workers_that_have_what_they_require(api: Api) -> None:
    plain, gpu = await api.register(), await api.register(labels={"gpu": "a100", "arch": "arm64"})
    run_id = await api.start(gpu_config(2))

    empty = await api.call("GET", "grading_job", worker=plain)
    job = await api.claim(gpu)

    assert empty.status_code == 498
    assert "require" not in job["stages"][0]  # graders of other releases know no such field
    shown = await api.data("GET", f"grading_job/{job['job_id']}")
    assert (shown["require"], shown["pipeline"][0]["require"]) == (["arch=arm64", "gpu"], ["gpu", "arch=arm64"])
    assert (await api.run(run_id))["stranded"] == []
    (listed,) = [one for one in (await api.data("GET", "workers"))["workers"] if one["worker_id"] == gpu]
    assert listed["labels"] == {"gpu": "a100", "arch": "arm64"}


async def test_a_run_that_nobody_can_run_says_so(api: Api) -> None:
    run_id = await api.start(gpu_config(3, require=["zone=a"]))
    assert (await api.run(run_id))["stranded"][0]["message"] == "no worker is connected"
    await asyncio.gather(*(api.register(labels={"gpu": ""}) for _ in range(7)))

    async def counted() -> bool:
        stranded = (await api.run(run_id))["stranded"]
        return bool(stranded == [{"require": require, "jobs": 3, "message": message}])

    require, message = ["arch=arm64", "gpu", "zone=a"], "0 of 7 workers have arch=arm64, gpu and zone=a"
    await eventually(counted)
    (job, *_) = (await api.run(run_id, jobs="queued"))["jobs"]
    shown = await api.data("GET", f"grading_job/{job['job_id']}")
    assert (shown["position"], shown["stranded"]) == (None, message)

    await api.register(labels={"gpu": "", "arch": "arm64", "zone": "a"})

    async def no_more() -> bool:
        return bool((await api.run(run_id))["stranded"] == [])

    await eventually(no_more)
    assert (await api.data("GET", f"grading_job/{job['job_id']}"))["position"] == 0


async def test_who_follows_a_run_hears_that_nobody_can_run_it(api: Api) -> None:
    await api.register()
    run_id = await api.start(gpu_config())
    async with (
        asyncio.timeout(20),
        api.http.stream(
            "GET", f"/api/v1/grading_run/{run_id}/events", headers={"Authorization": "test-cluster-token"}
        ) as events,
    ):
        data = None
        async for line in events.aiter_lines():
            if line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                if data["stranded"]:
                    break
    assert data is not None
    assert data["stranded"][0]["message"] == "0 of 1 workers have arch=arm64 and gpu"


async def test_a_poll_is_woken_for_what_its_worker_can_run(api: Api) -> None:
    plain, gpu = await api.register(), await api.register(labels={"gpu": "", "arch": "arm64"})
    first = await api.poll(plain)
    second = await api.poll(gpu)
    looks = api.store.calls.count("claim_jobs")

    await api.start(gpu_config())

    assert (await asyncio.wait_for(second, 20)).status_code == 200
    assert not first.done()
    assert api.store.calls.count("claim_jobs") == looks + 1  # nobody else looked
    await api.start(run_config())
    assert (await asyncio.wait_for(first, 20)).status_code == 200


async def test_a_queued_job_knows_its_position(api: Api) -> None:
    runs = [await api.start(run_config(10)) for _ in range(2)]
    jobs = [job["job_id"] for run_id in runs for job in (await api.run(run_id, jobs="all"))["jobs"]]
    positions = [(await api.data("GET", f"grading_job/{job_id}"))["position"] for job_id in jobs]
    assert positions == list(range(20))
    worker = await api.register()
    await api.claim(worker)
    assert (await api.data("GET", f"grading_job/{jobs[0]}"))["position"] is None
    assert (await api.data("GET", f"grading_job/{jobs[-1]}"))["position"] == 18


# --- priorities -------------------------------------------------------------------------------------------------------


async def test_small_runs_go_first(api: Api) -> None:
    large, small = await api.start(run_config(6)), await api.start(run_config(4, post=True))
    worker = await api.register(slots=3)
    jobs = await api.data("GET", "grading_job", worker=worker, params={"slots": 3})
    shown = [await api.data("GET", f"grading_job/{job['job_id']}") for job in jobs["jobs"]]
    assert [job["grading_run_id"] for job in shown] == [small] * 3
    assert [(await api.run(run_id))["priority"] for run_id in (large, small)] == [0, 1]


async def test_no_run_is_small_where_the_operator_says_so(tmp_path: Any) -> None:
    async with serving(f"sqlite:///{tmp_path}/b.db", policy=Policy(express_max_jobs=0)) as api:
        assert (await api.run(await api.start()))["priority"] == 0


async def test_the_operator_says_which_run_goes_first(api: Api) -> None:
    config = run_config(10)
    runs = [(await api.create(config, params={"priority": priority})) for priority in (0, 10, -10)]
    for run_id in runs:
        await api.data("POST", f"grading_run/{run_id}")
    worker = await api.register()
    job = await api.data("GET", f"grading_job/{(await api.claim(worker))['job_id']}")
    assert (job["grading_run_id"], job["priority"]) == (runs[1], 10)
    assert [(await api.run(run_id))["priority"] for run_id in runs] == [0, 10, -10]


@pytest.mark.parametrize("priority", ["11", "-11", "high", "1.0", "", "--1", "+1", "٣"])
async def test_a_priority_that_is_none_is_refused(api: Api, priority: str) -> None:
    answer = await api.call("POST", "grading_run", run_config(), params={"priority": priority})
    assert answer.status_code == 400
    assert answer.json()["data"]["errors"] == [
        {"path": "priority", "message": f"{priority!r} is not a whole number between -10 and 10"}
    ]


async def test_a_key_used_for_another_priority_is_refused(api: Api) -> None:
    key = {"Idempotency-Key": "once"}
    await api.create(headers=key, params={"priority": 3})
    await api.create(headers=key, params={"priority": 3})
    other = await api.call("POST", "grading_run", run_config(), headers=key, params={"priority": 4})
    assert other.status_code == 422
