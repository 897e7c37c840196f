"""Jobs as they come over the wire, also from an API that is odd."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_grader.domain import Stage, parse_bytes
from broadway_grader.errors import UnusableAnswer, UnusableJob
from broadway_grader.wire import parse_job

JOB_ID = "697dd0a80a1b2c3d4e5f6011"


def job(**stage: Any) -> dict[str, Any]:
    return {"job_id": JOB_ID, "attempt": 2, "stages": [{"image": "i", **stage}]}


def test_what_is_left_out_or_null_has_its_default() -> None:
    names = (
        "env",
        "entry_point",
        "host_name",
        "timeout",
        "memory",
        "cpus",
        "pids",
        "cpuset_cpus",
        "logs",
        "user",
        "results",
    )
    assert parse_job(job()).stages == [Stage(image="i")]
    assert parse_job(job(**dict.fromkeys(names))).stages == [Stage(image="i")]


def test_members_of_a_newer_api_are_ignored() -> None:
    assert parse_job(job(colour="blue") | {"priority": 7}).stages == [Stage(image="i")]


def test_values_of_the_environment_become_text_as_json_writes_them() -> None:
    env = {"TEXT": "x", "NUMBER": 7, "FRACTION": 1.5, "YES": True}
    assert parse_job(job(env=env)).stages[0].env == {"TEXT": "x", "NUMBER": "7", "FRACTION": "1.5", "YES": "true"}


def test_an_older_api_sends_no_attempt() -> None:
    assert parse_job({"job_id": JOB_ID, "stages": [{"image": "i"}]}).attempt == 1


@pytest.mark.parametrize(
    ("stage", "where"),
    [
        ({"image": ""}, "image"),
        ({"image": 7}, "image"),
        ({"env": ["A=b"]}, "env"),
        ({"env": {"A": None}}, "env.A"),
        ({"env": {"A": {}}}, "env.A"),
        ({"env": {"A=B": "x"}}, "A=B"),
        ({"env": {"": "x"}}, "env"),
        ({"env": {"A": "x\0y"}}, "env.A"),
        ({"entry_point": "true"}, "entry_point"),
        ({"entry_point": []}, "entry_point"),
        ({"entry_point": [1]}, "entry_point"),
        ({"entry_point": ["a\0b"]}, "entry_point"),
        ({"enable_networking": "yes"}, "enable_networking"),
        ({"host_name": 7}, "host_name"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "30"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"memory": "much"}, "memory"),
        ({"memory": [1]}, "memory"),
        ({"cpus": 0}, "cpus"),
        ({"pids": "many"}, "pids"),
        ({"privileged": 1}, "privileged"),
        ({"results": "yes"}, "results"),
    ],
)
def test_a_job_that_cannot_be_run_is_named_with_the_place_of_its_fault(stage: dict[str, Any], where: str) -> None:
    with pytest.raises(UnusableJob) as caught:
        parse_job(job(**stage))
    assert (caught.value.job_id, caught.value.attempt) == (JOB_ID, 2)
    assert where in caught.value.problem


@pytest.mark.parametrize("stages", [None, [], {}, "x", [7], [None]])
def test_stages_that_are_none(stages: object) -> None:
    with pytest.raises(UnusableJob):
        parse_job({"job_id": JOB_ID, "attempt": 1, "stages": stages})


@pytest.mark.parametrize("students", [{}, "x", 7])
def test_a_roster_that_is_none(students: object) -> None:
    with pytest.raises(UnusableJob):
        parse_job(job() | {"students": students})


@pytest.mark.parametrize("student_jobs", [{}, "x", [7], [], [{}, {}]])
def test_student_jobs_that_are_not_the_rosters(student_jobs: object) -> None:
    with pytest.raises(UnusableJob, match="student_jobs"):
        parse_job(job() | {"students": [{}], "student_jobs": student_jobs})


@pytest.mark.parametrize(
    "data",
    [None, [], "x", {}, {"job_id": 7}, {"job_id": "../../etc"}, {"job_id": ""}, {"job_id": JOB_ID, "attempt": "1"}],
)
def test_what_cannot_be_named_is_no_job(data: object) -> None:
    with pytest.raises(UnusableAnswer):
        parse_job(data)


@pytest.mark.parametrize(
    ("text", "size"),
    [(1048576, 2**20), ("1048576", 2**20), ("512m", 2**29), ("512M", 2**29), ("1.5g", 3 * 2**29), ("64k", 2**16),
     ("2GiB", 2**31), ("7b", 7)],
)  # fmt: skip
def test_sizes(text: int | str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "0", "1 000", "1e3", "١m", True])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_bytes(text)
