"""A class graded end to end, on both stores and in both runtimes."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.e2e.classes import run_config, stage, three_stages
from tests.e2e.fleet import Fleet


def test_every_outcome_a_student_can_have(fleets: Callable[[str], Fleet], store_url: str, runtime: str) -> None:
    fleet = fleets(store_url)
    fleet.start_api()
    fleet.start_grader(runtime=runtime)
    students = {
        "passes": "echo fine; echo warned >&2; echo kept > /job/file",
        "exits": "echo wrong answer; exit 3",
        "loops": "while :; do :; done",
        "hides": "(sleep 600 &) ; exit 0",
        "floods": "yes | head -c 5000000",
        "hoards": "tail /dev/zero",
        "garbles": r"printf '\377\376ok'",
        "calls out": "nslookup example.org || wget -T 2 -O - http://192.0.2.1/ || exit 9",
        "links away": "ln -s /etc/shadow /job/file; mkfifo /job/fifo; mkdir -p /job/a/b; chmod 000 /job/a/b",
    }
    stages = [stage('eval "$SCRIPT"', timeout=3, memory="64m"), stage("test ! -p /job/never; echo second")]
    config = run_config(
        *students.values(),
        stages=stages,
        pre_processing_pipeline=[stage("grep -q passes-or-not /job/roster.json || wc -c < /job/roster.json")],
        post_processing_pipeline=[stage("test -s /job/roster.json")],
    )
    run_id = fleet.grade(config)
    end = fleet.finish(run_id)

    assert (end["state"], end["success"]) == ("finished", True)
    jobs = dict(zip(students, fleet.jobs(run_id), strict=True))
    outcome = {name: (job["state"], job["reason"]) for name, job in jobs.items()}
    well = ("succeeded", None)
    hoarder = outcome.pop("hoards")
    assert outcome == {
        "passes": well,
        "exits": ("failed", "stage_failed"),
        "loops": ("failed", "timeout"),
        "hides": well,
        "floods": well,
        "garbles": well,
        "calls out": ("failed", "stage_failed"),
        "links away": well,
    }
    # Without a memory cgroup of its own, the sandbox can only make allocations fail.
    assert hoarder in {"docker": [("failed", "out_of_memory")]}.get(
        runtime, [("failed", "out_of_memory"), ("failed", "stage_failed")]
    )
    assert all(job["attempt"] == 1 for job in jobs.values())

    def logs(name: str) -> list[dict[str, object]]:
        return fleet.client.log(jobs[name]["job_id"])

    first, second = logs("passes")
    assert (first["stdout"], first["stderr"], second["stdout"]) == ("fine\n", "warned\n", "second\n")
    assert [part["stdout"] for part in logs("exits")] == ["wrong answer\n"], "nothing runs after a failed stage"
    assert str(logs("garbles")[0]["stdout"]).endswith("ok")
    assert len(str(logs("floods")[0]["stdout"])) < 2_000_000
    info = fleet.client.get(f"grading_job/{jobs['floods']['job_id']}")["info"]
    assert info[0]["truncated"]["stdout"] is True
    assert {part["runtime"] for part in info} == {runtime}

    fleet.stop()
    assert fleet.leftovers() == []


def test_a_failing_pre_processing_job_fails_the_run_and_cancels_its_students(fleet: Fleet, runtime: str) -> None:
    fleet.start_grader(runtime=runtime)
    config = run_config(
        "true", "true", pre_processing_pipeline=[stage("exit 1")], post_processing_pipeline=[stage("true")]
    )
    run_id = fleet.grade(config)
    end = fleet.finish(run_id)

    assert (end["state"], end["success"]) == ("failed", False)
    assert [job["state"] for job in fleet.jobs(run_id)] == ["cancelled", "cancelled"]
    assert end["pre_processing_job"]["reason"] == "stage_failed"
    assert end["post_processing_job"]["state"] == "cancelled"


def test_a_failing_post_processing_job_fails_the_run_but_no_student(fleet: Fleet, runtime: str) -> None:
    fleet.start_grader(runtime=runtime)
    run_id = fleet.grade(run_config("true", "exit 1", post_processing_pipeline=[stage("exit 5")]))
    end = fleet.finish(run_id)

    assert (end["state"], end["post_processing_job"]["reason"]) == ("failed", "stage_failed")
    assert [job["state"] for job in fleet.jobs(run_id)] == ["succeeded", "failed"]


def test_only_pre_and_post_processing_see_the_roster(fleet: Fleet, runtime: str) -> None:
    fleet.start_grader(runtime=runtime)
    show = stage("cat /job/roster.json 2>/dev/null || echo none")
    config = run_config(
        {"NET_ID": "ab1"},
        {"NET_ID": "cd2"},
        stages=[show],
        pre_processing_pipeline=[show],
        post_processing_pipeline=[show],
    )
    run_id = fleet.grade(config)
    assert fleet.finish(run_id)["state"] == "finished"

    assert [fleet.stdout(job)[0] for job in fleet.jobs(run_id)] == ["none\n", "none\n"]
    for kind in ("pre_processing", "post_processing"):
        (job,) = fleet.jobs(run_id, kind)
        assert json.loads(fleet.stdout(job)[0]) == config["students"]


def test_stages_share_job_and_templates_reach_the_right_student(fleet: Fleet, runtime: str) -> None:
    fleet.start_grader(runtime=runtime)
    names = [f"student{number}" for number in range(6)]
    run_id = fleet.grade(run_config(*({"NET_ID": name} for name in names), stages=three_stages()))
    assert fleet.finish(run_id)["counts"]["succeeded"] == len(names)

    reports = [fleet.stdout(job)[2] for job in fleet.jobs(run_id)]
    assert reports == [f"score {len(name) + 1} {name}\n" for name in names]


def test_an_image_that_does_not_exist_is_named(fleet: Fleet) -> None:
    fleet.start_grader(runtime="docker", image_pull_policy="never")
    run_id = fleet.grade(run_config("true", stages=[{"image": "broadway-nobody-made-this:1", "entry_point": ["true"]}]))
    assert fleet.finish(run_id)["state"] == "finished"

    (job,) = fleet.jobs(run_id)
    assert (job["state"], job["reason"]) == ("failed", "image_unavailable")
    info = fleet.client.get(f"grading_job/{job['job_id']}")["info"]
    assert "broadway-nobody-made-this:1" in info[-1]["message"]
