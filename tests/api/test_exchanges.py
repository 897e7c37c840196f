"""Results that bring the next jobs, and several results in one request: each is taken, or refused, for itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.serving import Api, Json, run_config


def result(job: Json, *, success: bool = True, **fields: Any) -> Json:
    return {"job_id": job["job_id"], "success": success, "attempt": job["attempt"], "info": []} | fields


async def claim(api: Api, worker: str, slots: int) -> list[Json]:
    return list((await api.data("GET", "grading_job", worker=worker, params={"slots": slots}))["jobs"])


async def exchange(api: Api, worker: str, results: list[Json], **params: Any) -> Json:
    return dict(await api.data("POST", "grading_job", {"results": results}, worker=worker, params=params))


async def test_a_run_is_drained_by_results_that_bring_the_next_jobs(any_api: Api) -> None:
    worker = await any_api.register(slots=2)
    run_id = await any_api.start(run_config(7, pre=True, post=True))
    jobs, seen = await claim(any_api, worker, 2), []
    while jobs:
        seen += [job["job_id"] for job in jobs]
        answer = await exchange(any_api, worker, [result(job) for job in jobs], slots=2)
        assert [entry["state"] for entry in answer["results"]] == ["succeeded"] * len(jobs)
        jobs = answer["jobs"]
        if not jobs and (await any_api.run(run_id))["state"] != "finished":
            jobs = await claim(any_api, worker, 2)  # the result itself opened the next phase
    assert len(set(seen)) == len(seen) == 9
    assert (await any_api.run(run_id))["state"] == "finished"


async def test_what_is_held_or_reported_is_not_handed_out_again(any_api: Api) -> None:
    worker = await any_api.register(slots=3)
    await any_api.start(run_config(6))
    first, second, third = await claim(any_api, worker, 3)
    answer = await exchange(any_api, worker, [result(first), result(second)], slots=2, holding=third["job_id"])
    assert not {job["job_id"] for job in answer["jobs"]} & {first["job_id"], second["job_id"], third["job_id"]}
    # An answer that got lost: what it gave is given again, with what it said of the results.
    again = await exchange(any_api, worker, [result(first), result(second)], slots=2, holding=third["job_id"])
    assert again == answer


async def test_a_lost_claim_is_in_no_other_results_way(any_api: Api) -> None:
    worker, other = await any_api.register(slots=4), await any_api.register()
    run_id = await any_api.start(run_config(4))
    good, faulty, lost = await claim(any_api, worker, 3)
    theirs = await any_api.claim(other)
    unknown = {"job_id": "0" * 24, "attempt": 1}

    sent = [
        result(theirs),
        result(good, info=[{"stdout": "kept"}]),
        result(lost, attempt=7),
        result(unknown),
        result(faulty, success=False, reason="runtime_error"),
    ]
    answer = await exchange(any_api, worker, sent)

    assert "jobs" not in answer
    assert [entry.get("status") for entry in answer["results"]] == [409, None, 409, 404, None]
    assert [entry.get("state") for entry in answer["results"]] == [None, "succeeded", None, None, "queued"]
    assert "does not hold" in answer["results"][0]["message"]
    assert (await any_api.run(run_id))["counts"] | {"queued": 1, "running": 2, "succeeded": 1} == (
        await any_api.run(run_id)
    )["counts"]
    log = await any_api.data("GET", f"grading_job/{good['job_id']}/log")
    assert log["stages"][0]["stdout"] == "kept"
    assert (await exchange(any_api, worker, sent))["results"] == answer["results"]


async def test_one_result_brings_the_next_job_if_it_is_asked_for_one(any_api: Api) -> None:
    worker = await any_api.register()
    await any_api.start(run_config(2))
    first = await any_api.claim(worker)

    async def report(job: Json, **params: Any) -> Json:
        body = {name: value for name, value in result(job).items() if name != "job_id"}
        return dict(await any_api.data("POST", f"grading_job/{job['job_id']}", body, worker=worker, params=params))

    answer = await report(first, slots=1)
    (second,) = answer.pop("jobs")
    assert answer == {"job_id": first["job_id"], "state": "succeeded"}
    assert second["job_id"] != first["job_id"]
    assert (await report(second, slots=1))["jobs"] == []
    assert "jobs" not in await report(second)


@pytest.mark.parametrize(
    ("results", "path"),
    [
        ([], "$.results"),
        ([{"success": True}], "$.results[0]"),
        ([{"job_id": "x", "success": True}], "$.results[0].job_id"),
        ([{"job_id": "0" * 24, "success": True}, {"job_id": "1" * 24, "success": "yes"}], "$.results[1].success"),
        ([{"job_id": "0" * 24, "success": True, "attempt": 0}], "$.results[0].attempt"),
    ],
)
async def test_a_body_of_another_form_is_refused_as_a_whole(api: Api, results: list[Json], path: str) -> None:
    worker = await api.register()
    await api.start(run_config(1))
    job = await api.claim(worker)
    body = {"results": [*results, result(job)] if results else []}
    answer = await api.call("POST", "grading_job", body, worker=worker, params={"slots": 1})
    assert answer.status_code == 400
    assert answer.json()["data"]["errors"][0]["path"] == path
    assert (await api.data("GET", f"grading_job/{job['job_id']}"))["state"] == "running"


async def test_a_worker_that_must_register_again_is_told_so(any_api: Api) -> None:
    worker = await any_api.register(slots=2)
    await any_api.start(run_config(3))
    jobs = await claim(any_api, worker, 2)
    await any_api.data("DELETE", f"worker/{worker}")
    body = {"results": [result(job) for job in jobs]}
    for params in ({}, {"slots": 2}):
        answer = await any_api.call("POST", "grading_job", body, worker=worker, params=params)
        assert answer.status_code == 401
        assert "register" in answer.json()["data"]["message"]


async def test_workers_that_exchange_at_the_same_time_share_the_queue(any_api: Api) -> None:
    workers = [await any_api.register(slots=3) for _ in range(4)]
    run_id = await any_api.start(run_config(60))

    async def drain(worker: str) -> list[str]:
        done, jobs = [], await claim(any_api, worker, 3)
        while jobs:
            done += [job["job_id"] for job in jobs]
            jobs = (await exchange(any_api, worker, [result(job) for job in jobs], slots=3))["jobs"]
        return done

    done = [job_id for ids in await asyncio.gather(*map(drain, workers)) for job_id in ids]
    assert len(done) == len(set(done)) == 60
    assert (await any_api.run(run_id))["counts"]["succeeded"] == 60
