"""What a course may ask for: each of the operator's limits, named with its option; nothing larger than Linux takes."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_api import environment
from broadway_api.bounds import MAX_COMMAND_BYTES
from broadway_api.errors import InvalidInput
from broadway_api.intake import Intake
from broadway_api.policy import Policy

NOW = datetime(2026, 1, 31, tzinfo=UTC)

#: Seconds that a thread may work on any body, on a machine that is busy with other things.
PATIENCE = 20.0


def faults(config: dict[str, Any], policy: Policy | None = None) -> dict[str, str]:
    try:
        Intake(policy or Policy()).plan(json.dumps(config).encode(), NOW)
    except InvalidInput as error:
        return {fault.path: fault.message for fault in error.faults}
    return {}


def config(*students: dict[str, Any], run_env: dict[str, Any] | None = None, **stage: Any) -> dict[str, Any]:
    return {"students": students or [{}], "student_pipeline": [{"image": "i"} | stage], "env": run_env or {}}


@pytest.mark.parametrize(
    ("policy", "stage", "field", "option"),
    [
        (Policy(max_stage_timeout=10), {"timeout": 11}, ".timeout", "--max-stage-timeout"),
        (Policy(max_stage_memory=2**30), {"memory": "1025m"}, ".memory", "--max-stage-memory"),
        (Policy(max_stage_memory=2**30), {"memory": 2**30 + 1}, ".memory", "--max-stage-memory"),
        (Policy(max_stage_memory=2**30), {"memory": "2G"}, ".memory", "--max-stage-memory"),
        (Policy(max_stage_cpus=2), {"cpus": 2.5}, ".cpus", "--max-stage-cpus"),
        (Policy(max_stage_pids=64), {"pids": 65}, ".pids", "--max-stage-pids"),
        (Policy(allow_networking=False), {"enable_networking": True}, ".enable_networking", "--no-allow-networking"),
        (Policy(), {"privileged": True}, ".privileged", "--allow-privileged"),
        (Policy(allow_root=False), {"user": "root"}, ".user", "--no-allow-root"),
        (Policy(allow_root=False), {"user": "00:1000"}, ".user", "--no-allow-root"),
        (Policy(allowed_images=("r/*", "b:?")), {"image": "r.evil/x"}, ".image", "--allowed-images"),
        (Policy(max_env_entries=1), {"env": {"A": 1, "B": 2}}, ".env", "--max-env-entries"),
        (Policy(max_env_bytes=2_000), {"env": {"A": "é" * 950}}, ".env", "--max-env-bytes"),
        (Policy(), {"entry_point": ["é" * 70_000]}, ".entry_point", str(MAX_COMMAND_BYTES)),
    ],
)
def test_a_stage_beyond_the_policy_is_told_the_limit_and_its_option(
    policy: Policy, stage: dict[str, Any], field: str, option: str
) -> None:
    found = faults(config(**stage), policy)
    assert set(found) == {f"$.student_pipeline[0]{field}"}
    assert option in found[f"$.student_pipeline[0]{field}"]


@pytest.mark.parametrize(
    ("policy", "stage"),
    [
        (Policy(max_stage_memory=2**30), {"memory": "1g"}),
        (Policy(max_stage_memory=2**30), {"memory": "1048576k"}),
        (Policy(max_stage_memory=2**30), {"memory": "1073741824b"}),
        (Policy(allow_networking=False), {"enable_networking": False}),
        (Policy(allow_root=False), {"user": "1000:0"}),
        (Policy(allow_root=False), {}),
        (Policy(allowed_images=("r/*", "b:?")), {"image": "r/course/grade@sha256:0"}),
        (Policy(allowed_images=("r/*", "b:?")), {"image": "b:1"}),
    ],
)
def test_a_stage_within_the_policy_is_taken(policy: Policy, stage: dict[str, Any]) -> None:
    assert faults(config(**stage), policy) == {}


def test_counts_are_bounded() -> None:
    two = {"image": "i"}
    body = config({"A": 1, "B": 2}, {}, {}) | {
        "pre_processing_pipeline": [two, two],
        "student_pipeline": [two, two],
        "env": {"A": 1, "B": 2},
    }
    found = faults(body, Policy(max_students=2, max_stages=1, max_env_entries=1))
    assert {path: message.partition("--")[2].partition(" ")[0] for path, message in found.items()} == {
        "$.students": "max-students",
        "$.students[0]": "max-env-entries",
        "$.pre_processing_pipeline": "max-stages",
        "$.student_pipeline": "max-stages",
        "$.env": "max-env-entries",
    }


def test_what_templates_make_of_an_environment_counts() -> None:
    policy = Policy(max_env_bytes=10_000)
    names = {f"A{number}": "$BIG" for number in range(20)}
    assert faults(config(run_env={"BIG": "x" * 9_000}), policy) == {}
    assert "$.students[1]" in faults(config({}, names, run_env={"BIG": "x" * 900}), policy)["$.student_pipeline[0].env"]
    assert faults(config({}, names, run_env={"BIG": "x" * 400}), policy) == {}


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=400)
values = (
    texts.filter(lambda text: not text.startswith("$"))
    | st.sampled_from(["$A", "$B", "$C", "$$A", "", "$GRADING_JOB_ID"])
    | st.integers()
    | st.booleans()
)
envs: st.SearchStrategy[dict[str, Any]] = st.dictionaries(st.sampled_from("ABCDE"), values)


@given(run=envs, stage=envs, roster=st.lists(envs, min_size=1, max_size=3))
def test_an_accepted_environment_keeps_the_limit(
    run: dict[str, Any], stage: dict[str, Any], roster: list[dict[str, Any]]
) -> None:
    """Against the definition: every job's environment, made as for its worker, and weighed."""
    limit = 1_024
    body = {"students": roster, "student_pipeline": [{"image": "i", "env": stage}], "env": run}
    found = faults(body, Policy(max_env_bytes=limit))
    if any("--max-env-bytes" not in message for message in found.values()):
        return  # a template that leads nowhere
    reserved = {"GRADING_RUN_ID": "0" * 24, "GRADING_JOB_ID": "0" * 24}
    sizes = [
        sum(len(f"{name}={value}".encode()) + 1 for name, value in resolved.items())
        for student in roster
        for resolved in [environment.resolve(environment.merge(run, stage, student), reserved)]
    ]
    assert bool(found) or max(sizes) <= limit
    assert not found or max(sizes) > limit - 128  # what is set aside for the reserved two


RUN = {f"R{number}": f"$R{number + 1}" for number in range(249)} | {"R249": "x"}
STAGES = [{"image": "i", "env": {f"S{number}": "$R1" for number in range(250)}}] * 20


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"students": [{f"A{n}": "$R0"} for n in range(50_000)]}, id="all names differ"),
        pytest.param(
            {"students": [{"A": f"$R{n % 250}", "B": f"$R{n // 250}"} for n in range(50_000)]},
            id="all templates differ",
        ),
        pytest.param({"students": [{f"A{n}": "$NO"} for n in range(50_000)]}, id="all are faulty"),
        pytest.param({"students": [{"A": "x" * 500, "B": "$R0"} for _ in range(50_000)]}, id="all are large"),
    ],
)
def test_no_accepted_or_refused_config_takes_long(body: dict[str, Any]) -> None:
    """Without a budget each of these is 10¹⁰ look-ups, an hour's work."""
    begun = time.monotonic()
    faults(body | {"env": RUN, "student_pipeline": STAGES})
    assert time.monotonic() - begun < PATIENCE


def test_a_class_with_few_different_entries_is_not_refused_for_its_size() -> None:
    roster = [
        {"NET_ID": f"s{n}", "PIN": f"$${n}", "NAME": "$NET_ID"} | ({"LATE": 1} if n % 3 else {}) for n in range(50_000)
    ]
    assert faults({"students": roster, "student_pipeline": [{"image": "i", "env": {"WHO": "$NET_ID"}}]}) == {}


def test_a_stage_names_so_many_secrets_and_no_more() -> None:
    env = {f"S{number}": {"secret": "key"} for number in range(17)}
    assert "16" in faults(config(env=env))["$.student_pipeline[0].env"]
    assert faults(config(env=dict(list(env.items())[:16]))) == {}


def test_a_secret_stands_in_the_env_of_a_stage_only() -> None:
    secret = {"S": {"secret": "key"}}
    found = faults(config({}, secret, run_env=secret))
    assert set(found) == {"$.students[1].S", "$.env.S"}
    assert all("only in the env of a stage" in message for message in found.values())


@pytest.mark.parametrize(
    "value", [{}, {"secret": ""}, {"secret": 7}, {"secret": "a", "x": 1}, {"secret": "$ne"}, ["a"]]
)
def test_what_names_no_secret_is_refused(value: Any) -> None:
    (path,) = faults(config(env={"S": value}))
    assert path.startswith("$.student_pipeline[0].env.S")
