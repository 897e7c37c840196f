"""Many failures shown as few causes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broadway_client import codec, models
from broadway_client.cli.causes import Failure, causes, failure, pattern
from tests.client.serving import ROOT

JOB = json.loads((ROOT / "tests/samples/job_answer.json").read_text())["data"]


def failed(number: int, stderr: str = "", stdout: str = "", *, reason: str = "stage_failed", **info: Any) -> Failure:
    student = {"NET_ID": f"student{number}"}
    told = {"exit_code": 1, "reason": reason, "message": None} | info
    changes = {"state": "failed", "reason": reason, "student": student, "info": [told]}
    job = codec.decode(models.JobDetail, JOB | changes)
    stages = [{"stage": 0, "stdout": stdout, "stderr": stderr}] if stdout or stderr else []
    return failure(job, codec.decode(models.JobLog, {"job_id": job.job_id, "attempt": 1, "stages": stages}))


def test_three_hundred_failures_are_four_causes() -> None:
    found = []
    for number in range(300):
        if number % 10 < 5:
            found.append(
                failed(
                    number, f"Traceback …\n  File \"/job/{number}.py\"\nNameError: name 'f{number}' is not defined\n"
                )
            )
        elif number % 10 < 8:
            found.append(
                failed(number, stdout=f"compiling\nstudent{number}.c:{number}: error: expected ';'\nmake: done\n")
            )
        elif number % 10 < 9:
            found.append(failed(number, f"still at {number}\n", reason="timeout", exit_code=None))
        else:
            found.append(failed(number, f"Segmentation fault at 0x7f{number:x}\n", exit_code=139))
    shown = causes(found)
    assert [len(cause.failures) for cause in shown] == [150, 90, 30, 30]
    assert [cause.pattern for cause in shown] == [
        "NameError: name '…' is not defined",
        "<NET_ID>.c:N: error: expected '…'",
        "",
        "Segmentation fault at <address>",
    ]


def test_what_differs_in_kind_stays_apart() -> None:
    found = [
        failed(1, "ValueError: no"),
        failed(2, "TypeError: no"),
        failed(3, exit_code=3),
        failed(4, exit_code=4),
        failed(5, reason="image_unavailable", exit_code=None, message="course/a:1: no such image"),
        failed(6, reason="image_unavailable", exit_code=None, message="course/b:1: no such image"),
    ]
    assert len(causes(found)) == 6


def test_a_stage_that_left_no_results_is_told_in_the_graders_words() -> None:
    one = failed(1, stdout="all went well\n", exit_code=0, message="/job/results.json is not there")
    assert one.said == "/job/results.json is not there"


def test_a_job_of_which_no_stage_ran_has_its_reason() -> None:
    job = codec.decode(models.JobDetail, JOB | {"state": "failed", "reason": "worker_lost", "info": []})
    assert causes([failure(job, None)])[0].example.reason == "worker_lost"


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("took 12.5 s", "took 7 s"),
        ("expected 3, got -4", "expected 30, got 5e-9"),
        ('unknown word "foo"', "unknown word 'bar baz'"),
        ("job 6b029070227aad2bfb51ee0a", "job 6b029070227aad2bfb51ffff"),
        ("at 2026-01-31T09:30:00.000Z", "at 2026-02-01 10:11:12"),
        ("hello amy-1 there", "hello bob-2 there"),
    ],
)
def test_what_varies_does_not_count(said: str, same: str) -> None:
    assert pattern(said, {"NET_ID": "amy-1"}) == pattern(same, {"NET_ID": "bob-2"})


def test_a_line_of_a_megabyte_is_cut() -> None:
    assert len(failed(1, "x" * 1_000_000).said) <= 400
