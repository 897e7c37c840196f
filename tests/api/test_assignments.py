"""What courses call in the course protocol, from its description."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.course_protocol import ONLY_STUDENTS, World
from tests.api.serving import TOKEN, run_config

FULL = {
    "image": "alpine:3.5",
    "env": {"STAGE": "pre"},
    "entrypoint": ["echo", "pre-processing-job"],
    "timeout": 20,
    "hostname": "123456",
    "networking": False,
    "privileged": True,
    "memory": "2g",
    "logs": False,
}
EVERYTHING = {
    "student_pipeline": [{"image": "alpine:3.5", "networking": True}, {"image": "b", "env": {"v": "1"}}],
    "pre_processing_pipeline": [FULL],
    "post_processing_pipeline": None,
    "env": {"TEST": "testing"},
}
ALL_PHASES = {
    "pre_processing_pipeline": [{"image": "pre"}],
    "student_pipeline": [{"image": "student"}],
    "post_processing_pipeline": [{"image": "post"}],
}
QUEUED, RUNNING = "grading job has been scheduled", "grading job is running"
SUCCEEDED, FAILED = "grading job was successful", "grading job failed"


async def test_a_configuration_comes_back_as_it_was_sent(there: World) -> None:
    missing = await there.admin.call("GET", "grading_config/cs241/mp1")
    assert (missing.status_code, missing.json()["data"]["message"]) == (400, "assignment configuration not found")
    for config in (EVERYTHING, {"student_pipeline": [{"image": "a"}]}):
        await there.admin.data("POST", "grading_config/cs241/mp1", config)
        assert await there.admin.data("GET", "grading_config/cs241/mp1") == config
    await there.other.data("POST", "grading_config/cs225/mp1", EVERYTHING)
    assert await there.admin.data("GET", "grading_config/cs241/mp1") == config


CALLS = [
    ("POST", "grading_config/{}/mp1"),
    ("GET", "grading_config/{}/mp1"),
    ("POST", "grading_run/{}/mp1"),
    ("GET", "grading_run_status/{}/temp"),
    ("GET", "grading_run_env/{}/temp"),
    ("GET", "grading_job_log/{}/weird"),
    ("GET", "worker/{}/all"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_a_course_is_opened_by_its_own_tokens_alone(here: World, method: str, path: str) -> None:
    async def told(authorization: str | None, course: str) -> tuple[int, str]:
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = await here.nobody.http.request(method, f"/api/v1/{path.format(course)}", headers=headers)
        return answer.status_code, answer.json()["data"]["message"]

    for malformed in (None, "", "Bearer", here.admin.token, f"Bearer  {here.admin.token}", "Basic x"):
        assert await told(malformed, "cs241") == (401, "invalid token format")
    assert await told(f"Bearer {here.admin.token}", "cs999") == (401, "course not found")
    readable = path.startswith("grading_run_status")
    for wrong in ("wrong", here.other.token, *([] if readable else [here.query.token])):
        assert await told(f"Bearer {wrong}", "cs241") == (401, "invalid token")


async def test_a_query_token_may_read_how_a_run_is_doing(here: World) -> None:
    run_id = await here.grade()
    assert await here.query.data("GET", f"grading_run_status/cs241/{run_id}") == await here.status(run_id)


@pytest.mark.parametrize(("method", "path"), [*CALLS, ("POST", "worker/w"), ("GET", "grading_job/w")])
async def test_browsers_from_everywhere_may_call(here: World, method: str, path: str) -> None:
    asked = await here.nobody.call("OPTIONS", path.format("cs241"))
    assert asked.status_code == 204
    assert asked.content == b""
    assert asked.headers["Access-Control-Allow-Origin"] == "*"
    assert asked.headers["Access-Control-Allow-Headers"] == "Authorization"
    refused = await here.nobody.call(method, path.format("cs241"))
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (b"", "$"),
        (b"[", None),
        ({}, "$"),
        ({"student_pipeline": []}, "$.student_pipeline"),
        ({"student_pipeline": [{"image": "a", "hello": "world"}]}, "$.student_pipeline[0]"),
        ({"student_pipeline": [{"image": "a", "env": {"$a.b": "x"}}]}, "$.student_pipeline[0].env"),
        ({"student_pipeline": [{"image": "a"}], "students": [{}]}, "$"),
    ],
)
async def test_a_faulty_configuration_is_refused_and_not_kept(here: World, config: Any, path: str | None) -> None:
    answer = await here.admin.call("POST", "grading_config/cs241/mp1", config)
    assert answer.status_code == 400
    if path:
        assert answer.json()["data"]["errors"][0]["path"] == path
    assert (await here.admin.call("GET", "grading_config/cs241/mp1")).status_code == 400


async def test_a_whole_run_of_three_phases(there: World) -> None:
    await there.register("w")
    run_id = await there.grade(ALL_PHASES, pre_processing_env={"type": "pre"}, post_processing_env={"type": "post"})

    async def go_through(phase: str, key: str, types: str) -> None:
        status = await there.status(run_id)
        assert status["state"] == phase
        (job_id,) = status[key]
        assert status[key] == {job_id: QUEUED}
        job = await there.poll("w")
        assert job["grading_job_id"] == job_id
        assert job["stages"][0]["image"] == types
        assert await there.poll("w") is None
        assert (await there.status(run_id))[key] == {job_id: RUNNING}
        assert (await there.report("w", job_id)).status_code == 200

    first = await there.status(run_id)
    assert first["student_jobs_state"] == {}
    assert first["post_processing_job_state"] is None
    await go_through("pre processing job has been scheduled", "pre_processing_job_state", "pre")
    await go_through("students grading jobs have been scheduled", "student_jobs_state", "student")
    await go_through("post processing job has been scheduled", "post_processing_job_state", "post")
    end = await there.status(run_id)
    assert end["state"] == "grading run is complete"
    assert {word for key, jobs in end.items() if key != "state" for word in jobs.values()} == {SUCCEEDED}


async def test_a_run_without_the_other_phases_has_none(here: World) -> None:
    status = await here.status(await here.grade())
    assert status["pre_processing_job_state"] is None
    assert status["post_processing_job_state"] is None


@pytest.mark.parametrize(("phase", "state"), [("pre", "grading run failed"), ("student", "grading run is complete")])
async def test_who_fails_the_run(here: World, phase: str, state: str) -> None:
    pipelines = {"student_pipeline": [{"image": "student"}]}
    pipelines |= {"pre_processing_pipeline": [{"image": "pre"}]} if phase == "pre" else {}
    run_id = await here.grade(pipelines)
    await here.register("w")
    job = await here.poll("w")
    await here.report("w", job["grading_job_id"], success=False)
    status = await here.status(run_id)
    assert status["state"] == state
    jobs = {word for key, jobs in status.items() if key != "state" for word in (jobs or {}).values()}
    assert jobs == {FAILED}


async def test_an_env_for_a_phase_that_is_not_there_is_refused(here: World) -> None:
    await here.admin.data("POST", "grading_config/cs241/mp1", ONLY_STUDENTS)
    for phase in ("pre", "post"):
        request = {"students_env": [{"netid": "x"}], f"{phase}_processing_env": {"type": "x"}}
        answer = await here.admin.call("POST", "grading_run/cs241/mp1", request)
        assert answer.status_code == 400
        assert answer.json()["data"]["errors"][0]["path"] == f"$.{phase}_processing_env"


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        ({"students_env": []}, "$.students_env"),
        ({"students_env": [{"$a.b": "x"}]}, "$.students_env[0]"),
        ({"students_env": [{"a": {"$where": "1"}}]}, "$.students_env[0].a"),
        ({"students_env": "x"}, "$.students_env"),
        ({}, "$"),
    ],
)
async def test_a_faulty_run_is_refused_where_it_was_written(here: World, request_: Any, path: str) -> None:
    await here.admin.data("POST", "grading_config/cs241/mp1", ONLY_STUDENTS)
    answer = await here.admin.call("POST", "grading_run/cs241/mp1", request_)
    assert answer.status_code == 400
    assert answer.json()["data"]["errors"][0]["path"] == path
    assert (await here.api.data("GET", "grading_run"))["grading_runs"] == []


async def test_what_the_cluster_does_not_allow_is_refused_when_a_run_is_made(here: World) -> None:
    await here.admin.data("POST", "grading_config/cs241/mp1", {"student_pipeline": [FULL]})
    answer = await here.admin.call("POST", "grading_run/cs241/mp1", {"students_env": [{}]})
    assert answer.status_code == 400
    (fault,) = answer.json()["data"]["errors"]
    assert fault["path"] == "$.student_pipeline[0].privileged"
    assert "--allow-privileged" in fault["message"]


async def test_what_is_not_there_is_a_400(here: World) -> None:
    run_id = await here.grade()
    for course, caller in (("cs241", here.admin), ("cs225", here.other)):
        paths = [f"grading_run_status/{course}/temp", f"grading_run_env/{course}/temp", f"grading_job_log/{course}/x"]
        unknown = "0" * 24
        paths += [f"grading_run_status/{course}/{unknown}", f"grading_job_log/{course}/{unknown}"]
        for path in paths:
            assert (await caller.call("GET", path)).status_code == 400, path
        assert (await caller.call("POST", f"grading_run/{course}/mp9", {"students_env": [{}]})).status_code == 400
    # A run of another course is as if it were not there.
    for kind in ("grading_run_status", "grading_run_env"):
        theirs = await here.other.call("GET", f"{kind}/cs225/{run_id}")
        nothing = await here.other.call("GET", f"{kind}/cs225/{'0' * 24}")
        assert theirs.status_code == nothing.status_code == 400
        assert theirs.text.replace(run_id, "0" * 24) == nothing.text
    assert (await here.admin.call("GET", "worker/cs241/mine")).status_code == 404


async def test_the_environments_of_a_run_are_told_stage_by_stage(there: World) -> None:
    config = {
        "env": {"a": "1", "b": "$HOME"},
        "pre_processing_pipeline": [{"image": "pre"}],
        "student_pipeline": [{"image": "s"}, {"image": "t", "env": {"a": "2"}}],
    }
    run_id = await there.grade(config, pre_processing_env={"type": "pre"})
    envs = await there.admin.data("GET", f"grading_run_env/cs241/{run_id}")
    ((pre_id, pre),) = envs["pre_processing_env"].items()
    assert pre == {
        "a": ["1"],
        "b": ["$HOME"],
        "type": ["pre"],
        "GRADING_RUN_ID": [run_id],
        "GRADING_JOB_ID": [pre_id],
    }
    ((_, student),) = envs["student_env"].items()
    assert (student["a"], student["b"], student["netid"]) == (["1", "2"], ["$HOME"] * 2, ["s0"] * 2)
    assert envs["post_processing_env"] == {}


async def test_a_log_is_there_once_its_job_has_ended(there: World) -> None:
    run_id = await there.grade()
    await there.register("w")
    (job_id,) = (await there.status(run_id))["student_jobs_state"]
    log = f"grading_job_log/cs241/{job_id}"
    assert (await there.admin.call("GET", log)).status_code == 400
    await there.poll("w")
    assert (await there.admin.call("GET", log)).status_code == 400
    await there.report("w", job_id)
    assert await there.admin.data("GET", log) == {"stdout": "out", "stderr": "err"}
    assert (await there.other.call("GET", log.replace("cs241", "cs225"))).status_code == 400


async def test_the_output_of_all_stages_is_one_log(here: World) -> None:
    await here.grade()
    worker = await here.api.register()
    job = await here.api.claim(worker)
    info = [{"exit_code": 0, "stdout": "one\n", "stderr": ""}, {"exit_code": 0, "stdout": "two", "stderr": "e"}]
    await here.api.report(worker, job, info=info)
    log = await here.admin.data("GET", f"grading_job_log/cs241/{job['job_id']}")
    assert log == {"stdout": "one\n\ntwo", "stderr": "e"}


async def test_workers_of_both_protocols_are_listed(there: World) -> None:
    for name in ("a", "b"):
        await there.register(name)
    await there.api.register(hostname="univac")
    await there.grade()
    job = await there.poll("a")
    idle = {"jobs_processed": 0, "busy": False, "alive": True}
    listed = (await there.admin.data("GET", "worker/cs241/all"))["worker_nodes"]
    assert sorted(listed, key=lambda node: (node["hostname"], node["busy"])) == [
        {"hostname": "eniac"} | idle,
        {"hostname": "eniac"} | idle | {"busy": True},
        {"hostname": "univac"} | idle,
    ]
    await there.report("a", job["grading_job_id"])
    listed = (await there.admin.data("GET", "worker/cs241/all"))["worker_nodes"]
    assert sorted(node["jobs_processed"] for node in listed) == [0, 0, 1]
    assert not any(node["busy"] for node in listed)


async def test_a_run_is_the_same_one_in_both_protocols(there: World) -> None:
    run_id = await there.grade(students=2)
    seen = await there.api.run(run_id, jobs="all")
    assert (seen["course"], seen["state"]) == ("cs241", "students")
    assert [job["student"] for job in seen["jobs"]] == [{"netid": "s0"}, {"netid": "s1"}]
    ours = (await there.api.data("POST", "grading_run", run_config(2), params={"course": "cs241"}))["grading_run_id"]
    await there.api.data("POST", f"grading_run/{ours}")
    assert len((await there.status(ours))["student_jobs_state"]) == 2
    default = await there.api.start()
    assert (await there.admin.call("GET", f"grading_run_status/cs241/{default}")).status_code == 400
    assert (await there.api.data("POST", f"grading_run/{run_id}/cancel"))["state"] == "cancelled"
    status = await there.status(run_id)
    assert (status["state"], set(status["student_jobs_state"].values())) == ("grading run failed", {FAILED})


async def test_a_run_keeps_the_configuration_that_it_was_started_with(here: World) -> None:
    await here.register("w")
    await here.grade()
    await here.admin.data("POST", "grading_config/cs241/mp1", {"student_pipeline": [{"image": "other"}]})
    job = await here.poll("w")
    assert job["stages"][0]["image"] == "alpine:3.5"


async def test_a_large_class_is_taken_in_without_holding_up_anybody(here: World) -> None:
    run_id = await here.grade(students=5_000)
    assert (await here.api.run(run_id))["counts"]["queued"] == 5_000
    assert len((await here.status(run_id))["student_jobs_state"]) == 5_000


async def test_an_operator_may_do_what_a_course_may(here: World) -> None:
    assert here.grader.token == TOKEN
    await here.grader.data("POST", "grading_config/cs241/mp1", ONLY_STUDENTS)
    assert await here.admin.data("GET", "grading_config/cs241/mp1") == ONLY_STUDENTS
