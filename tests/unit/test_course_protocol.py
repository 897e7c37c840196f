"""The course protocol's words, put into ours and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_api import capabilities, environment, runconfig
from broadway_api.course_protocol import configs, jobs, words
from broadway_api.course_protocol.shapes import GRADING_CONFIG, GRADING_RUN, JOB_RESULT, STAGE_FIELDS
from broadway_api.domain import Job, JobState, JobType, Reason, RunState, Stage, StageLog
from broadway_api.errors import Fault, InvalidInput
from broadway_api.ids import new_id
from broadway_api.validation import Validator

FULL = {
    "image": "alpine:3.5",
    "env": {"STAGE": "pre"},
    "entrypoint": ["echo", "hi"],
    "networking": True,
    "privileged": True,
    "hostname": "123456",
    "timeout": 20,
    "memory": "2g",
    "cpuset_cpus": "0-1",
    "logs": False,
}


def job(job_type: JobType = JobType.STUDENT) -> Job:
    return Job(id=new_id(), run_id=new_id(), type=job_type, seq=1, attempt_limit=3)


def handed_out(config: Mapping[str, Any], run: Mapping[str, Any], *, over_websocket: bool = False) -> list[Any]:
    """The stages of the first student's job."""
    data = configs.run_config(config, run)
    ours = runconfig.from_json(data)
    envs = [
        environment.resolve(environment.merge(ours.env, stage.env, data["students"][0]), {})
        for stage in ours.student_pipeline
    ]
    stages: list[Any] = jobs.handout(job(), ours, envs, over_websocket=over_websocket)["stages"]
    return stages


def test_every_state_has_its_word() -> None:
    assert set(words.RUN) == set(RunState)
    assert set(words.JOB) == set(words.STREAM) == set(JobState)


def test_a_stage_is_handed_out_as_it_was_configured() -> None:
    assert handed_out({"student_pipeline": [FULL]}, {"students_env": [{"id": "amy"}]}) == [
        FULL | {"env": {"STAGE": "pre", "id": "amy"}}
    ]


def test_a_stage_always_says_whether_it_has_networking_and_how_long_it_may_take() -> None:
    (stage,) = handed_out({"student_pipeline": [{"image": "a"}]}, {"students_env": [{}]})
    assert stage == {"image": "a", "env": {}, "networking": False, "timeout": 30}


def test_over_websocket_a_stage_has_nothing_that_makes_its_grader_end() -> None:
    (stage,) = handed_out({"student_pipeline": [FULL]}, {"students_env": [{}]}, over_websocket=True)
    assert set(FULL) - set(stage) == {"logs", "cpuset_cpus"}


def test_the_assignment_gives_way_to_the_stage_and_both_to_the_student() -> None:
    config = {
        "env": {"a": "assignment", "b": "assignment", "c": "assignment", "d": "assignment"},
        "student_pipeline": [{"image": "a", "env": {"b": "stage", "c": "stage", "d": ""}}],
    }
    (stage,) = handed_out(config, {"students_env": [{"c": "student"}]})
    assert stage["env"] == {"a": "assignment", "b": "stage", "c": "student", "d": ""}


def test_the_env_of_a_phase_stands_over_that_of_its_stages() -> None:
    config = {
        "pre_processing_pipeline": [{"image": "a", "env": {"x": "stage"}}],
        "student_pipeline": [{"image": "a", "env": {"x": "stage"}}],
        "post_processing_pipeline": [{"image": "a"}, {"image": "b"}],
    }
    run = {"students_env": [{}], "pre_processing_env": {"x": "pre"}, "post_processing_env": {"y": "post"}}
    data = configs.run_config(config, run)
    assert [stage["env"] for stage in data["pre_processing_pipeline"]] == [{"x": "pre"}]
    assert [stage["env"] for stage in data["student_pipeline"]] == [{"x": "stage"}]
    assert [stage["env"] for stage in data["post_processing_pipeline"]] == [{"y": "post"}] * 2


@given(st.dictionaries(st.sampled_from(["a", "b", "HOME"]), st.text("$aHOME{}. ")))
def test_a_dollar_sign_means_nothing(env: dict[str, str]) -> None:
    assignment = {"HOME": "/root", "a": "$HOME", "b": "$$"}
    config = {"student_pipeline": [{"image": "a"}], "env": assignment}
    (stage,) = handed_out(config, {"students_env": [env]})
    assert stage["env"] == assignment | env


@pytest.mark.parametrize("phase", ["pre_processing", "post_processing"])
@pytest.mark.parametrize("pipeline", [{}, None, []])
def test_an_env_for_a_pipeline_that_is_not_there_is_refused(phase: str, pipeline: Any) -> None:
    config = {"student_pipeline": [{"image": "a"}]} | ({} if pipeline == {} else {f"{phase}_pipeline": pipeline})
    with pytest.raises(InvalidInput) as caught:
        configs.run_config(config, {"students_env": [{}], f"{phase}_env": {"type": "x"}})
    assert [fault.path for fault in caught.value.faults] == [f"$.{phase}_env"]
    assert f"no {phase}_pipeline" in str(caught.value)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("$.students[3].NAME", "$.students_env[3].NAME"),
        ("$.student_pipeline[0].entry_point", "$.student_pipeline[0].entrypoint"),
        ("$.pre_processing_pipeline[12].enable_networking", "$.pre_processing_pipeline[12].networking"),
        ("$.post_processing_pipeline[0].host_name", "$.post_processing_pipeline[0].hostname"),
        ("$.student_pipeline[0].env.entry_point", "$.student_pipeline[0].env.entry_point"),
        ("$", "$"),
    ],
)
def test_faults_are_told_where_the_course_wrote_them(ours: str, theirs: str) -> None:
    told = configs.in_their_words(InvalidInput([Fault(path=ours, message="x")], more=2))
    assert [fault.path for fault in told.faults] == [theirs]
    assert told.more == 2


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"student_pipeline": None},
        {"student_pipeline": []},
        {"student_pipeline": "hello"},
        {"student_pipeline": [None]},
        {"student_pipeline": [{}]},
        {"student_pipeline": [{"image": "a", "hello": "world"}]},
        {"student_pipeline": [{"image": "a", "user": "root"}]},
        {"student_pipeline": [{"image": "a", "privileged": "very high"}]},
        {"student_pipeline": [{"image": "a", "memory": 2**30}]},
        {"student_pipeline": [{"image": "a", "env": {"$a.b": "1"}}]},
        {"student_pipeline": [{"image": "a"}], "students": [{}]},
    ],
)
def test_a_faulty_configuration_is_refused(config: Any) -> None:
    assert list(Validator(GRADING_CONFIG).faults(config))


@pytest.mark.parametrize("nothing", [None, []])
def test_a_configuration_may_say_that_it_has_no_such_pipeline(nothing: Any) -> None:
    config = {
        "student_pipeline": [FULL],
        "pre_processing_pipeline": nothing,
        "post_processing_pipeline": nothing,
        "env": None,
    }
    assert not list(Validator(GRADING_CONFIG).faults(config))
    assert set(configs.run_config(config, {"students_env": [{}]})) == {"students", "student_pipeline"}


def test_a_run_of_nobody_is_refused() -> None:
    assert list(Validator(GRADING_RUN).faults({"students_env": []}))


@pytest.mark.parametrize(
    "stage",
    [
        {"user": "1000"},
        {"working_dir": "/x"},
        {"pids": 3},
        {"cpus": 2.0},
        {"results": True},
        {"read_only": True},
        {"env": {"KEY": {"secret": "key"}}},
    ],
)
def test_what_a_released_grader_would_ignore_is_not_for_it(stage: dict[str, Any]) -> None:
    plain = runconfig.from_json(configs.run_config({"student_pipeline": [FULL]}, {"students_env": [{}]}))
    released = capabilities.COURSE_PROTOCOL
    assert capabilities.fits(released, capabilities.requirement_of(plain, JobType.STUDENT))
    beyond = runconfig.from_json({"student_pipeline": [{"image": "a"}, {"image": "a"} | stage]})
    required = capabilities.requirement_of(beyond, JobType.STUDENT)
    assert not capabilities.fits(released, required)
    assert capabilities.fits({"gpu": ""}, required)
    assert capabilities.fits(released, capabilities.requirement_of(beyond, JobType.PRE_PROCESSING))
    told = "0 of 1 workers know all fields of its stages: they are graders of the course protocol"
    assert capabilities.shortage(required, [released]) == told


def test_what_a_released_grader_knows_is_what_this_protocol_can_say() -> None:
    assert set(STAGE_FIELDS.values()) | {"require"} == capabilities.COURSE_PROTOCOL_FIELDS


def test_memory_in_bytes_is_handed_out_as_text() -> None:
    ours = runconfig.from_json({"student_pipeline": [{"image": "a", "memory": 64 * 1024**2}]})
    assert jobs.handout(job(), ours, [{}], over_websocket=False)["stages"][0]["memory"] == "67108864"


def test_a_report_becomes_exit_codes_a_reason_and_a_log() -> None:
    told = jobs.result(
        {
            "grading_job_id": "x",
            "success": False,
            "results": [
                {"success": True, "killed": False, "data": {"ExitCode": 0}},
                {"success": False, "killed": True, "data": {"ExitCode": 137}},
            ],
            "logs": {"stdout": "out", "stderr": "err"},
        }
    )
    assert (told.success, told.reason) == (False, Reason.TIMEOUT)
    assert [info["exit_code"] for info in told.info] == [0, None]
    assert told.logs == (StageLog(stage=0, stdout="out", stderr="err"),)


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ({"success": False, "data": {"ExitCode": 3}}, Reason.STAGE_FAILED),
        ({"success": False, "data": {"ExitCode": 137, "OOMKilled": True}}, Reason.OUT_OF_MEMORY),
        ({"success": False}, Reason.STAGE_FAILED),
        ({"res": "x"}, Reason.STAGE_FAILED),
    ],
)
def test_a_failed_job_always_has_a_reason(stage: Any, reason: Reason) -> None:
    assert jobs.result({"success": False, "results": [stage], "logs": {}}).reason is reason


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "logs", "ExitCode", "x"]), inner)
    ),
    max_leaves=8,
)


@given(
    success=st.booleans(), results=ANYTHING | st.lists(ANYTHING), logs=ANYTHING | st.dictionaries(st.text(), ANYTHING)
)
def test_whatever_stands_beside_the_outcome_the_job_ends(success: bool, results: Any, logs: Any) -> None:
    report = {"grading_job_id": "x", "success": success, "results": results, "logs": logs}
    assert not list(Validator(JOB_RESULT).faults(report))
    told = jobs.result(report)
    assert told.success is success
    assert (told.reason is None) is success
    json.dumps(told.info)


def test_what_all_stages_printed_is_one_text() -> None:
    logs = [StageLog(stage=0, stdout="a", stderr=""), StageLog(stage=2, stdout="b", stderr="e")]
    assert jobs.log_text(logs) == {"stdout": "a\nb", "stderr": "e"}
    assert jobs.log_text([]) == {"stdout": "", "stderr": ""}


def test_the_domain_has_a_place_for_every_field_of_a_stage() -> None:
    ours = configs.run_config({"student_pipeline": [FULL]}, {"students_env": [{}]})["student_pipeline"][0]
    assert isinstance(runconfig.stage_from_json(ours), Stage)
