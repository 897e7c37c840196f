"""Each shape's bad values, each with its place; never more than twenty, never one twice."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from broadway_api.errors import InvalidInput
from broadway_api.policy import Policy
from broadway_api.schemas import HEARTBEAT, REGISTRATION, RESULT
from broadway_api.validation import MAX_FAULTS, RunConfigValidator, Validator

VALID: dict[str, Any] = {"students": [{"NET_ID": "ada"}], "student_pipeline": [{"image": "i", "env": {}}]}
ID = "0123456789abcdef01234567"


def faults_of(value: Any, policy: Policy | None = None) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        RunConfigValidator(policy or Policy()).check(value)
    return {fault.path: fault.message for fault in caught.value.faults}


def with_stage(**fields: Any) -> dict[str, Any]:
    return VALID | {"student_pipeline": [{"image": "i"} | fields]}


STAGE_FAULTS: dict[str, list[Any]] = {
    "image": ["", 7, None, " x", "-x", "a b", "x" * 513, "a\0", "a\n", "a\x1b[31m", "a\u202eb", "é"],
    "env": [None, [], "A=1", {"1A": "x"}, {"A-B": "x"}, {"": "x"}, {"Ä": "x"}, {"A\n": "x"}],
    "entry_point": ["sh", [], [1], [None], ["a\0b"], ["x" * 131_073], [["sh"]]],
    "enable_networking": ["true", 1, None],
    "host_name": ["", "-x", "a_b", "x" * 64, 7, "a\n"],
    "timeout": [0, -1, 3_601, "30", None, True, 0.0],
    "memory": [0, 1024, 1.5, "", "512", "m", "-1m", "512 m", "1t", True, "0m", 2**51, "9" * 9 + "g"],
    "cpus": [0, -1, "1", 1_025, 5e-324, 0.009],
    "pids": [0, -1, 1.5, "1", 2**23],
    "logs": ["no", 0],
    "user": ["", "a:b:c", "-1", 1000, "a b", ":1"],
    "working_dir": ["", "job", "/a\0", 7],
    "privileged": [True, "false", 0],
    "results": ["true", 1, None],
    "colour": [1],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in STAGE_FAULTS.items() for value in values]
)
def test_a_bad_stage_is_refused_with_the_place(field: str, value: Any) -> None:
    found = faults_of(with_stage(**{field: value}))
    assert len(found) == 1
    (path,) = found
    within = "" if field == "colour" else f".{field}"
    assert path.startswith(f"$.student_pipeline[0]{within}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "registry.example:5000/course/grade@sha256:" + "0" * 64),
        ("entry_point", ["sh", ""]),
        ("timeout", 0.001),
        ("timeout", 3600),
        ("memory", 6 * 2**20),
        ("memory", "512m"),
        ("memory", "536870912"),
        ("memory", "1G"),
        ("cpus", 0.5),
        ("host_name", "a.b-c"),
        ("user", "1000:1000"),
        ("user", "grader"),
        ("working_dir", "/"),
        ("env", {"_a1": "$$x", "B": 1.5, "C": False, "D": ""}),
        ("privileged", False),
        ("results", True),
    ],
)
def test_a_good_stage_is_taken(field: str, value: Any) -> None:
    RunConfigValidator(Policy()).check(with_stage(**{field: value}))


def test_at_most_one_stage_of_a_pipeline_has_results() -> None:
    plain, graded = {"image": "i"}, {"image": "i", "results": True}
    both = {
        "student_pipeline": [plain, graded, plain],
        "post_processing_pipeline": [graded, graded | {"results": False}],
    }
    RunConfigValidator(Policy()).check(VALID | both)
    found = faults_of(VALID | {"student_pipeline": [graded, plain, graded]})
    assert found == {"$.student_pipeline": "more than one stage has results; which of them is the grade?"}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (None, "$"),
        ([], "$"),
        ("x", "$"),
        ({}, "$"),
        (VALID | {"students": []}, "$.students"),
        (VALID | {"students": {}}, "$.students"),
        (VALID | {"students": None}, "$.students"),
        (VALID | {"students": ["ada"]}, "$.students[0]"),
        (VALID | {"students": [{}, {"A": None}]}, "$.students[1].A"),
        (VALID | {"students": [{}, {"A": [1]}]}, "$.students[1].A"),
        (VALID | {"students": [{"A": {}}]}, "$.students[0].A"),
        (VALID | {"students": [{"A B": 1}]}, "$.students[0]"),
        (VALID | {"students": [{"A": "x" * 131_073}]}, "$.students[0].A"),
        (VALID | {"students": [{"A": "x\0"}]}, "$.students[0].A"),
        (VALID | {"student_pipeline": []}, "$.student_pipeline"),
        (VALID | {"student_pipeline": [7]}, "$.student_pipeline[0]"),
        (VALID | {"student_pipeline": [{}]}, "$.student_pipeline[0]"),
        (VALID | {"pre_processing_pipeline": []}, "$.pre_processing_pipeline"),
        (VALID | {"pre_processing_pipeline": None}, "$.pre_processing_pipeline"),
        (VALID | {"post_processing_pipeline": [{}]}, "$.post_processing_pipeline[0]"),
        (VALID | {"env": []}, "$.env"),
        (VALID | {"env": {"A": None}}, "$.env.A"),
        (VALID | {"more": 1}, "$"),
    ],
)
def test_a_bad_config_is_refused_with_the_place(value: Any, path: str) -> None:
    before = copy.deepcopy(value)
    assert path in faults_of(value)
    assert value == before


def test_the_policys_timeout_is_the_limit() -> None:
    assert "$.student_pipeline[0].timeout" in faults_of(with_stage(timeout=11), Policy(max_stage_timeout=10))
    RunConfigValidator(Policy(max_stage_timeout=10)).check(with_stage(timeout=10))


def test_privileged_is_the_operators_to_allow() -> None:
    assert "does not allow" in faults_of(with_stage(privileged=True))["$.student_pipeline[0].privileged"]
    RunConfigValidator(Policy(allow_privileged=True)).check(with_stage(privileged=True))


def test_messages_name_what_is_wrong_and_stay_short() -> None:
    found = faults_of(VALID | {"students": [{"1ST": "x", "OK": 1, "A-B": 2}]})
    assert "'1ST'" in found["$.students[0]"]
    assert "'OK'" not in found["$.students[0]"]
    for value in ({"A": "x" * 200_000}, {"x" * 300: 1}, {"A": ["x" * 100_000]}):
        assert all(len(message) < 400 for message in faults_of(VALID | {"students": [value]}).values())


def test_a_nul_is_called_by_its_name() -> None:
    assert "NUL" in faults_of(VALID | {"env": {"A": "\0"}})["$.env.A"]


def test_every_place_of_ten_thousand_is_counted_and_twenty_are_told() -> None:
    roster = [{"A": None} for _ in range(10_000)]
    with pytest.raises(InvalidInput) as caught:
        RunConfigValidator(Policy()).check(VALID | {"students": roster})
    assert [fault.path for fault in caught.value.faults] == [f"$.students[{index}].A" for index in range(MAX_FAULTS)]
    assert caught.value.more == 10_000 - MAX_FAULTS


def test_a_late_fault_of_a_long_roster_has_its_true_index() -> None:
    roster: list[dict[str, Any]] = [{"A": 1} for _ in range(10_000)]
    roster[9_999] = {"A": {}}
    roster[500] = {"B-": 1}
    assert set(faults_of(VALID | {"students": roster})) == {"$.students[500]", "$.students[9999].A"}


def test_no_fault_is_told_twice() -> None:
    with pytest.raises(InvalidInput) as caught:
        RunConfigValidator(Policy()).check(VALID | {"students": [{"A-1": 1, "B-2": 2, "C-3": 3}]})
    assert len(set(caught.value.faults)) == len(caught.value.faults)
    assert len(caught.value.faults) == 1


def test_a_place_with_an_odd_name_can_be_told() -> None:
    assert "$.labels['a b']" in {fault.path for fault in Validator(REGISTRATION).faults({"labels": {"a b": 1}})}


@pytest.mark.parametrize(
    ("schema", "value", "path"),
    [
        (REGISTRATION, [], "$"),
        (REGISTRATION, {"hostname": ""}, "$.hostname"),
        (REGISTRATION, {"hostname": "a\nb"}, "$.hostname"),
        (REGISTRATION, {"hostname": "a\x1b[31m"}, "$.hostname"),
        (REGISTRATION, {"runtime": "docker\n"}, "$.runtime"),
        (REGISTRATION, {"version": "\0"}, "$.version"),
        (REGISTRATION, {"slots": 0}, "$.slots"),
        (REGISTRATION, {"slots": True}, "$.slots"),
        (REGISTRATION, {"slots": 1.5}, "$.slots"),
        (REGISTRATION, {"labels": {"a": 1}}, "$.labels.a"),
        (REGISTRATION, {"labels": []}, "$.labels"),
        (REGISTRATION, {"token": "x"}, "$"),
        (HEARTBEAT, None, "$"),
        (HEARTBEAT, {"running": ["x"]}, "$.running[0]"),
        (HEARTBEAT, {"running": [{}]}, "$.running[0]"),
        (HEARTBEAT, {"running": [{"job_id": "x"}]}, "$.running[0].job_id"),
        (HEARTBEAT, {"running": [{"job_id": ID, "attempt": 0}]}, "$.running[0].attempt"),
        (HEARTBEAT, {"running": [{"job_id": ID, "attempt": 2**63}]}, "$.running[0].attempt"),
        (RESULT, {}, "$"),
        (RESULT, {"success": 1}, "$.success"),
        (RESULT, {"success": "true"}, "$.success"),
        (RESULT, {"success": None}, "$.success"),
        (RESULT, {"success": True, "info": {}}, "$.info"),
        (RESULT, {"success": True, "info": [1]}, "$.info[0]"),
        (RESULT, {"success": True, "attempt": "1"}, "$.attempt"),
        (RESULT, {"success": True, "attempt": 10**30}, "$.attempt"),
        (RESULT, {"success": False, "reason": "bad_mood"}, "$.reason"),
        (RESULT, {"success": False, "reason": "worker_lost"}, "$.reason"),
        (RESULT, {"success": False, "reason": "cancelled"}, "$.reason"),
    ],
)
def test_workers_bodies(schema: dict[str, Any], value: Any, path: str) -> None:
    assert path in {fault.path for fault in Validator(schema).faults(value)}


def test_results_may_have_more_fields_than_we_know() -> None:
    assert not list(
        Validator(RESULT).faults({"success": True, "new": 1, "info": [{"new": {"a": [1]}}], "reason": None})
    )
