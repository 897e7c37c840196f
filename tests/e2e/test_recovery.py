"""Graders that are killed, frozen or told to let go; and one that speaks the first version of the protocol."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.classes import run_config, stage
from tests.e2e.fleet import TOKEN, Fleet
from tests.e2e.leftovers import containers_of

#: Seconds; as `Fleet` has it.
HEARTBEAT = 1


def spooled(fleet: Fleet, grader: str = "grader") -> list[Path]:
    return list((fleet.work(grader) / "spool").glob("*.json"))


def refused(fleet: Fleet, grader: str = "grader") -> list[Path]:
    return list((fleet.work(grader) / "spool" / "refused").iterdir())


@pytest.mark.parametrize(("store_url", "runtime"), [("sqlite", "docker"), ("mongo", "sandbox")], indirect=True)
def test_a_result_outlives_its_grader_and_an_api_that_is_away(
    fleets: Callable[[str], Fleet], store_url: str, runtime: str
) -> None:
    fleet = fleets(store_url)
    api = fleet.start_api()
    grader = fleet.start_grader(runtime=runtime, slots=2)
    run_id = fleet.grade(run_config("sleep 1; echo done", "sleep 1; echo done", "sleep 1; echo done"))
    fleet.await_running(run_id, 2)
    api.kill()
    fleet.wait_for(lambda: len(spooled(fleet)) == 2, "two results to be kept", grader)
    grader.kill()
    fleet.start_api()
    fleet.start_grader(runtime=runtime, slots=2)
    end = fleet.finish(run_id)

    assert (end["state"], end["counts"]["succeeded"]) == ("finished", 3)
    jobs = fleet.jobs(run_id)
    assert [fleet.stdout(job) for job in jobs] == [{0: "done\n"}] * 3
    assert {job["attempt"] for job in jobs} == {1}, "what had been run was not run again"
    fleet.wait_for(lambda: not spooled(fleet), "the spool to be empty")
    fleet.stop()
    assert refused(fleet) == []
    assert fleet.leftovers() == []


def test_a_killed_grader_gives_up_its_jobs_when_it_comes_back(fleet: Fleet, runtime: str) -> None:
    grader = fleet.start_grader(runtime=runtime, slots=1)
    run_id = fleet.grade(run_config("sleep 3; echo done"))
    (job,) = fleet.await_running(run_id)
    grader.kill()
    fleet.start_grader(runtime=runtime, slots=1)
    assert fleet.finish(run_id)["counts"]["succeeded"] == 1

    (again,) = fleet.jobs(run_id)
    assert (again["attempt"], again["worker_id"] != job["worker_id"]) == (2, True)
    (died,) = fleet.client.get(f"grading_job/{again['job_id']}")["attempts"]
    assert died["reason"] == "worker_lost", "what may have killed its grader has cost an attempt"
    assert fleet.api is not None
    said = fleet.api.output()
    assert f"worker {job['worker_id']} crashed, it held 1 jobs" in said
    assert f"lost by worker {job['worker_id']}" not in said, "it did not wait for the lease"
    workers = [worker["worker_id"] for worker in fleet.client.get("workers")["workers"]]
    assert workers == [again["worker_id"]], "the old id is gone"
    fleet.stop()
    assert fleet.leftovers() == []


def test_a_frozen_graders_late_result_changes_nothing_and_blocks_nothing(fleet: Fleet) -> None:
    grader = fleet.start_grader("frozen", runtime="sandbox", slots=1)
    run_id = fleet.grade(run_config("sleep 3; echo $GRADING_JOB_ID"))
    (job,) = fleet.await_running(run_id)
    grader.send(signal.SIGSTOP)
    fleet.start_grader("other", runtime="sandbox", slots=1)
    assert fleet.finish(run_id)["counts"]["succeeded"] == 1
    before = accepted(fleet, job["job_id"])
    fleet.graders["other"].stop(20)
    # Its stage ended long ago: it has a result as soon as it goes on, before a heartbeat can say that nobody wants it.
    grader.send(signal.SIGCONT)

    second = fleet.grade(run_config("echo next"))
    assert fleet.finish(second)["counts"]["succeeded"] == 1, "its slot goes on"
    assert accepted(fleet, job["job_id"]) == before
    assert spooled(fleet, "frozen") == []
    fleet.stop()
    assert fleet.leftovers() == []


def test_cancelling_a_run_stops_its_jobs_within_a_heartbeat(fleet: Fleet, runtime: str) -> None:
    fleet.start_grader(runtime=runtime, slots=2)
    run_id = fleet.grade(run_config(*["sleep 61.5"] * 4))
    fleet.await_running(run_id, 2)
    fleet.wait_for(lambda: stages_of(fleet, runtime) == 2, "two stages to run")
    answer = httpx.post(f"{fleet.url}/api/v1/grading_run/{run_id}/cancel", headers={"Authorization": TOKEN}, timeout=10)
    assert answer.status_code == 200
    begun = time.monotonic()
    fleet.wait_for(lambda: stages_of(fleet, runtime) == 0, "the stages to be killed")
    fleet.wait_for(lambda: not list(fleet.work("grader").glob("jobs/*")), "their directories to be removed")
    # The engine takes its time to kill, on a busy machine the more; a stage left alone would have run for a minute.
    assert time.monotonic() - begun < HEARTBEAT + 20

    assert fleet.finish(fleet.grade(run_config("true", "true")))["counts"]["succeeded"] == 2, "the slots are free"
    assert {job["state"] for job in fleet.jobs(run_id)} == {"cancelled"}
    cancelled = {job["job_id"] for job in fleet.jobs(run_id)}
    reported = re.findall(r"result of job (\w+)", fleet.graders["grader"].output())
    assert reported
    assert cancelled.isdisjoint(reported)
    fleet.stop()
    assert refused(fleet) == []
    assert fleet.leftovers() == []


def accepted(fleet: Fleet, job_id: str) -> dict[str, Any]:
    """What is kept of a job's result; it is that of the second attempt."""
    job, log = fleet.client.get(f"grading_job/{job_id}"), fleet.client.get(f"grading_job/{job_id}/log")
    assert (job["attempt"], log["attempt"]) == (2, 2)
    return {name: job[name] for name in ("state", "worker_id", "info", "attempts", "finished_at")} | log


def stages_of(fleet: Fleet, runtime: str) -> int:
    """How many stages run: containers, or /job directories that the sandbox has made and not removed."""
    if runtime == "docker":
        return len(containers_of(fleet.directory))
    return len(list(fleet.work("grader").glob("jobs/*")))


class FirstGrader:
    """Speaks the specification's protocol to the letter: no attempt, no slots, nothing held, empty heartbeats."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/v1/", headers={"Authorization": TOKEN}, timeout=10)
        answer = self._call("GET", "worker_register")
        self._http.headers["worker_id"] = answer["worker_id"]
        self.heartbeat_interval = answer["heartbeat"]
        self.worked: list[dict[str, Any]] = []

    def close(self) -> None:
        self._http.close()

    def work_until_idle(self) -> None:
        """Take jobs one by one, report each, until the queue is empty; every other one fails."""
        while (job := self._poll()) is not None:
            self._call("POST", "heartbeat")
            self.worked.append(job)
            success = len(self.worked) % 2 == 1
            info = [{"successful": success, "exit_code": 0 if success else 1} for _ in job["stages"]]
            body = {"status": "done", "data": {"success": success, "info": info}}
            self._call("POST", f"grading_job/{job['job_id']}", body)

    def _poll(self) -> dict[str, Any] | None:
        answer = self._http.get("grading_job")
        if answer.status_code == 498:
            return None
        return dict(answer.raise_for_status().json()["data"])

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        return dict(self._http.request(method, path, json=body).raise_for_status().json()["data"])


def test_a_grader_of_the_first_protocol_completes_a_run(fleets: Callable[[str], Fleet], store_url: str) -> None:
    fleet = fleets(store_url)
    fleet.start_api()
    grader = FirstGrader(fleet.url)
    try:
        config = run_config(
            {"NET_ID": "one"},
            {"NET_ID": "two"},
            {"NET_ID": "three"},
            stages=[stage("grade", env={"WHO": "$NET_ID"}), stage("report")],
            pre_processing_pipeline=[stage("prepare")],
        )
        run_id = fleet.grade(config)
        grader.work_until_idle()
        end = fleet.finish(run_id)
    finally:
        grader.close()
    assert (end["state"], end["counts"]["succeeded"], end["counts"]["failed"]) == ("finished", 2, 2)
    first, *students = grader.worked
    assert first["students"] == config["students"]
    assert [job["stages"][0]["env"]["WHO"] for job in students] == ["one", "two", "three"]
    assert all("students" not in job for job in students)
    assert [job["attempt"] for job in fleet.jobs(run_id)] == [1, 1, 1]
    assert [job["reason"] for job in fleet.jobs(run_id)] == ["stage_failed", None, "stage_failed"]
