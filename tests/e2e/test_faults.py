"""Processes stopped and killed in the middle of a run; every student still ends in exactly one accepted result."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broadway_client import Client
from tests.e2e.classes import run_config, stage, three_stages
from tests.e2e.fleet import TOKEN, Fleet

NAP = "sleep 4; echo done"


def test_sigterm_lets_a_grader_finish_its_job_and_say_goodbye(fleet: Fleet, runtime: str) -> None:
    grader = fleet.start_grader(runtime=runtime, slots=1)
    run_id = fleet.grade(run_config(NAP, "true"))
    (running,) = fleet.await_running(run_id)
    grader.send(signal.SIGTERM)

    assert grader.wait(30) == 0
    first, second = fleet.jobs(run_id)
    assert (first["job_id"], first["state"], first["attempt"]) == (running["job_id"], "succeeded", 1)
    assert second["state"] == "queued", "no new job after SIGTERM"
    assert fleet.client.get("workers")["workers"] == []
    fleet.stop()
    assert fleet.leftovers() == []


def test_a_second_signal_hands_the_job_back_and_another_grader_finishes_it(fleet: Fleet, runtime: str) -> None:
    fleet.start_grader("second", runtime=runtime, slots=1)
    (second,) = fleet.alive_workers()
    with Client(fleet.url, TOKEN) as client:
        client.drain_worker(second["worker_id"])
    grader = fleet.start_grader("first", runtime=runtime, slots=1)
    run_id = fleet.grade(run_config("test -e /job/here && exit 1; touch /job/here; sleep 6; echo done"))
    (job,) = fleet.await_running(run_id)
    grader.send(signal.SIGTERM)
    fleet.wait_for(lambda: "no more jobs" in grader.output(), "the first signal to be heard", grader)
    grader.send(signal.SIGTERM)
    grader.wait(30)

    # At once: the lease, which would bring the job back too, still has seconds to go.
    assert fleet.jobs(run_id)[0]["worker_id"] != job["worker_id"]
    with Client(fleet.url, TOKEN) as client:
        client.resume_worker(second["worker_id"])
    assert fleet.finish(run_id)["counts"]["succeeded"] == 1
    fleet.stop()
    assert fleet.leftovers() == []


def test_a_killed_grader_loses_its_lease_and_its_next_life_cleans_up(fleet: Fleet, runtime: str) -> None:
    grader = fleet.start_grader("killed", runtime=runtime, slots=1)
    run_id = fleet.grade(run_config("sleep 3; echo done", stages=[stage('eval "$SCRIPT"'), stage("true")]))
    fleet.await_running(run_id)
    grader.kill()
    fleet.start_grader("other", runtime=runtime, slots=1)
    end = fleet.finish(run_id)

    assert (end["state"], end["counts"]["succeeded"]) == ("finished", 1)
    (job,) = fleet.jobs(run_id)
    assert job["attempt"] == 2
    attempts = fleet.client.get(f"grading_job/{job['job_id']}")["attempts"]
    assert [attempt["reason"] for attempt in attempts] == ["worker_lost"]
    fleet.start_grader("killed", runtime=runtime, slots=1)
    fleet.stop()
    assert fleet.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_api_that_comes_back_in_the_middle_of_a_run_loses_and_repeats_nothing(
    fleets: Callable[[str], Fleet], store_url: str, number: signal.Signals
) -> None:
    fleet = fleets(store_url)
    api = fleet.start_api()
    for name in ("one", "two"):
        fleet.start_grader(name, runtime="sandbox", slots=2)
    students = [{"NET_ID": f"student{number}"} for number in range(24)]
    nap = [*three_stages(), stage("sleep 0.4")]
    run_id = fleet.grade(run_config(*students, stages=nap, post_processing_pipeline=[stage("echo posted")]))
    fleet.wait_for(lambda: fleet.client.run(run_id)["counts"]["succeeded"] >= 4, "the run to be under way")
    api.send(number)
    api.wait(30)
    assert all(grader.exit_code is None for grader in fleet.graders.values())
    fleet.start_api()
    end = fleet.finish(run_id)

    assert (end["state"], end["counts"]["succeeded"]) == ("finished", len(students) + 1)
    for job, student in zip(fleet.jobs(run_id), students, strict=True):
        assert job["student"] == student
        net_id = student["NET_ID"]
        assert fleet.stdout(job) == {2: f"score {len(net_id) + 1} {net_id}\n"}
    # Each accepted result counts once for the worker that sent it.
    assert sum(worker["jobs_processed"] for worker in fleet.alive_workers()) == len(students) + 1
    fleet.stop()
    assert fleet.leftovers() == []


def test_the_api_exits_0_at_sigterm_and_waits_for_no_poll(fleets: Callable[[str], Fleet], store_url: str) -> None:
    fleet = fleets(store_url)
    api = fleet.start_api()
    grader = fleet.start_grader(runtime="sandbox")  # its long poll is in flight
    asked = time.monotonic()
    api.send(signal.SIGTERM)

    assert api.wait(30) == 0
    assert time.monotonic() - asked < 15  # five are promised, of a machine that has time; the poll has twenty
    assert grader.exit_code is None, "a grader outlives its API"


def test_no_process_shows_or_writes_the_token(fleet: Fleet, tmp_path: Path) -> None:
    grader = fleet.start_grader(runtime="sandbox")
    run_id = fleet.grade(run_config("env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'"))
    assert fleet.finish(run_id)["counts"]["succeeded"] == 1

    assert fleet.api is not None
    token = TOKEN.encode()
    for process in (fleet.api, grader):
        assert token not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert token not in file.read_bytes(), file
    (job,) = fleet.jobs(run_id)
    assert token.decode() not in fleet.stdout(job)[0]
