"""Clean ends and second tries: cancelling and retrying runs, draining workers and quarantining them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.likeness import assert_like
from tests.api.serving import Api, Json, run_config, sample

UNKNOWN = "0123456789abcdef01234567"


async def grade(api: Api, worker: str, **outcome: Any) -> list[str]:
    """Take jobs and end them alike until there are none; who was graded, in order."""
    graded = []
    while (answer := await api.call("GET", "grading_job", worker=worker)).status_code == 200:
        job = answer.json()["data"]
        graded.append(job["stages"][0]["env"].get("NET_ID") or job["stages"][0]["image"])
        assert (await api.report(worker, job, **outcome)).status_code == 200
    return graded


def counted(run: Json) -> dict[str, int]:
    """The states that any job is in."""
    return {state: number for state, number in run["counts"].items() if number}


# --- cancelling -----------------------------------------------------------------------------------------------------


async def test_a_cancelled_run_ends_at_once_with_all_its_jobs(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(3, post=True))
    job = await any_api.claim(worker)

    answer = (await any_api.call("POST", f"grading_run/{run_id}/cancel")).json()

    assert_like(sample("cancel_answer"), answer)
    run = await any_api.run(run_id)
    assert (run["state"], run["success"], run["reasons"]) == ("cancelled", False, {"cancelled": 4})
    assert run["finished_at"] is not None
    beat = {"running": [{"job_id": job["job_id"], "attempt": 1}]}
    assert (await any_api.data("POST", "heartbeat", beat, worker=worker))["lost"] == [job["job_id"]]
    assert (await any_api.report(worker, job)).status_code == 409
    assert (await any_api.call("GET", "grading_job", worker=worker)).status_code == 498
    assert counted(await any_api.run(run_id)) == {"cancelled": 4}


async def test_cancelling_again_is_harmless_and_what_ended_otherwise_stays(any_api: Api) -> None:
    ready = await any_api.create()
    for _ in range(2):
        assert (await any_api.data("POST", f"grading_run/{ready}/cancel"))["state"] == "cancelled"
    assert (await any_api.call("POST", f"grading_run/{ready}")).status_code == 400  # and it starts no more

    done = await any_api.start()
    await grade(any_api, await any_api.register())
    answer = await any_api.call("POST", f"grading_run/{done}/cancel")
    assert answer.status_code == 400
    assert "has ended, its state is finished" in answer.json()["data"]["message"]
    assert (await any_api.run(done))["state"] == "finished"


@pytest.mark.parametrize("word", ["cancel", "retry"])
async def test_a_run_that_is_not_there(api: Api, word: str) -> None:
    assert (await api.call("POST", f"grading_run/{UNKNOWN}/{word}")).status_code == 404
    assert (await api.call("POST", f"grading_run/nonsense/{word}")).status_code == 400


# --- retrying -------------------------------------------------------------------------------------------------------


async def test_without_a_list_all_that_failed_is_tried_again_and_post_processing_follows(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(3, post=True))
    good = await any_api.claim(worker)
    await any_api.report(worker, good)
    assert await grade(any_api, worker, success=False, reason="timeout") == ["s1", "s2", "post"]
    assert (await any_api.run(run_id))["state"] == "failed"

    answer = (await any_api.call("POST", f"grading_run/{run_id}/retry")).json()

    assert_like(sample("retry_answer"), answer)
    run = await any_api.run(run_id)
    assert (run["state"], run["success"], run["finished_at"]) == ("students", None, None)
    assert counted(run) == {"succeeded": 1, "queued": 2, "waiting": 1}
    assert await grade(any_api, worker) == ["s1", "s2", "post"]
    after = await any_api.run(run_id, jobs="all")
    assert (after["state"], after["success"], after["reasons"]) == ("finished", True, {})
    assert [job["attempt"] for job in after["jobs"]] == [1, 2, 2, 2]


async def test_named_students_are_tried_again_however_they_ended(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(4, post=True))
    assert await grade(any_api, worker) == ["s0", "s1", "s2", "s3", "post"]

    body = {"students": [{"NET_ID": "s2"}, {"NET_ID": "s0"}, {"NET_ID": "nobody"}]}
    answer = await any_api.data("POST", f"grading_run/{run_id}/retry", body)

    assert answer == {"grading_run_id": run_id, "jobs": 3}
    assert await grade(any_api, worker) == ["s0", "s2", "post"]  # which adds the results up anew
    assert (await any_api.run(run_id))["state"] == "finished"


async def test_a_cancelled_run_can_be_taken_up_again(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(2, pre=True, post=True))
    late = await any_api.claim(worker)
    await any_api.data("POST", f"grading_run/{run_id}/cancel")

    assert (await any_api.data("POST", f"grading_run/{run_id}/retry"))["jobs"] == 4

    assert (await any_api.run(run_id))["state"] == "pre_processing"
    assert (await any_api.report(worker, late)).status_code == 409  # that was the first life's
    assert await grade(any_api, worker) == ["pre", "s0", "s1", "post"]
    assert (await any_api.run(run_id))["state"] == "finished"


async def test_what_cannot_be_tried_again(any_api: Api) -> None:
    async def refused(run_id: str, body: Any, told: str) -> None:
        answer = await any_api.call("POST", f"grading_run/{run_id}/retry", body)
        assert answer.status_code == 400
        assert told in answer.json()["data"]["message"]

    worker = await any_api.register()
    run_id = await any_api.start(run_config(2))
    await refused(run_id, None, "has not ended")
    await grade(any_api, worker)
    before = await any_api.run(run_id, jobs="all")
    await refused(run_id, None, "has no such job")
    await refused(run_id, {"students": [{"NET_ID": "nobody"}]}, "has no such job")
    wrongs: tuple[Any, ...] = ({"students": []}, {"students": ["s0"]}, {"students": [{}]}, {"others": 1}, [])
    for wrong in wrongs:
        assert (await any_api.call("POST", f"grading_run/{run_id}/retry", wrong)).status_code == 400
    assert await any_api.run(run_id, jobs="all") == before


# --- workers --------------------------------------------------------------------------------------------------------


async def listed(api: Api) -> Json:
    """The one worker that there is."""
    (worker,) = (await api.data("GET", "workers"))["workers"]
    return dict(worker)


async def test_a_worker_is_drained_and_comes_back(any_api: Api) -> None:
    worker = await any_api.register()
    await any_api.start(run_config(2))
    job = await any_api.claim(worker)

    answer = (await any_api.call("POST", f"workers/{worker}/drain")).json()

    assert_like(sample("drain_answer"), answer)
    assert (await listed(any_api))["state"] == "draining"
    nothing = await any_api.call("GET", "grading_job", worker=worker, params={"holding": job["job_id"]})
    assert nothing.status_code == 498
    assert (await any_api.report(worker, job)).status_code == 200
    await any_api.data("POST", f"workers/{worker}/resume")
    assert (await listed(any_api))["state"] == "alive"
    await any_api.claim(worker)


@pytest.mark.parametrize("word", ["drain", "resume"])
async def test_a_worker_that_is_not_there(api: Api, word: str) -> None:
    assert (await api.call("POST", f"workers/{UNKNOWN}/{word}")).status_code == 401
    assert (await api.call("POST", f"workers/nonsense/{word}")).status_code == 400
    assert (await api.call("GET", f"workers/{UNKNOWN}/{word}")).status_code == 405


async def test_a_worker_that_fails_job_after_job_is_in_quarantine_until_staff_release_it(any_api: Api) -> None:
    worker = await any_api.register()
    run_id = await any_api.start(run_config(5))
    for _ in range(3):
        assert (await listed(any_api))["quarantined_until"] is None
        job = await any_api.claim(worker)
        assert (await any_api.report(worker, job, success=False, reason="runtime_error")).json()["data"][
            "state"
        ] == "queued"

    shown = await listed(any_api)
    assert shown["state"] == "quarantined"
    assert shown["quarantined_until"] > shown["last_seen"]
    assert (await any_api.call("GET", "grading_job", worker=worker)).status_code == 498
    assert counted(await any_api.run(run_id)) == {"queued": 5}

    await any_api.data("POST", f"workers/{worker}/resume")
    shown = await listed(any_api)
    assert (shown["state"], shown["quarantined_until"]) == ("alive", None)
    assert len(await grade(any_api, worker)) == 5


async def test_an_image_that_nobody_has_is_not_the_workers_fault(any_api: Api) -> None:
    worker = await any_api.register()
    await any_api.start(run_config(4))
    for _ in range(4):
        await any_api.report(worker, await any_api.claim(worker), success=False, reason="image_unavailable")
    assert (await listed(any_api))["state"] == "alive"


async def test_an_image_that_others_have_is(any_api: Api) -> None:
    good, bad = await any_api.register(hostname="a"), await any_api.register(hostname="b")
    await any_api.start(run_config(5))
    await any_api.report(good, await any_api.claim(good))
    for _ in range(3):
        await any_api.report(bad, await any_api.claim(bad), success=False, reason="image_unavailable")
    states = [worker["state"] for worker in (await any_api.data("GET", "workers"))["workers"]]
    assert states == ["alive", "quarantined"]
