"""Failures that have one cause look alike, and others do not."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from broadway_api.causes import LONGEST, normalised, told_by
from broadway_api.domain import Reason, StageLog


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("AssertionError: expected 4, got -17.25", "AssertionError: expected #, got #"),
        ("KeyError: 'total' in \"x\", can't go on with `y'", "KeyError: '…' in '…', can't go on with '…'"),
        ("\x1b[31;1mFAIL\x1b[0m\ttest_3 (0x7ffe01)", "FAIL test_# (<address>)"),
        ("no file /tmp/build-x81z/main.o", "no file /tmp/<name>/main.o"),
        ("object 5f1d7a0c9b3e4d2a18c6f0b1 is gone", "object <id> is gone"),
        ("\x1b]0;title\x07hello \u202eamy", "hello <NET_ID>"),
        ("in /home/amy/lab1.py", "in /home/<NET_ID>/lab#.py"),
    ],
)
def test_what_differs_between_students_is_left_out(line: str, cause: str) -> None:
    assert normalised(line, {"NET_ID": "amy", "N": 4, "TEMPLATE": "$NET_ID"}) == cause


@pytest.mark.parametrize(
    ("stdout", "stderr", "cause"),
    [
        ("ok\n", "Traceback (most recent call last):\n  x\nValueError: bad 7\n", "ValueError: bad #"),
        ("main.c:3: error: no x\n", "make: *** [all] Error 2\nmake: done\n", "make: done"),
        ("main.c:3: error: no x\n", "", "main.c:#: error: no x"),
        ("gcc: fatal error: no input\n", "gcc: error: no input\nmake: *** [all] Error 2\n", "gcc: error: no input"),
        ("1 2 3\nbye\n", "", "bye"),
        ("", "", "exit code 1"),
    ],
)
def test_the_cause_is_the_last_line_that_tells_something(stdout: str, stderr: str, cause: str) -> None:
    logs = [
        StageLog(stage=0, stdout="error of another stage", stderr=""),
        StageLog(stage=1, stdout=stdout, stderr=stderr),
    ]
    info: list[dict[str, object]] = [{"exit_code": 0}, {"exit_code": 1, "reason": "stage_failed"}]
    assert told_by(Reason.STAGE_FAILED, info, logs)[1] == cause


def test_three_hundred_failures_are_four_causes() -> None:
    def cause(number: int) -> str:
        name, code, info = f"student{number}", 1, {}
        if number % 10 < 5:
            said = f"Traceback …\n  File \"/job/{number}.py\"\nNameError: name 'f{number}' is not defined\n"
        elif number % 10 < 8:
            said = f"{name}.c:{number}: error: expected ';', got -{number}\nmake: *** [all] Error 2\n"
        elif number % 10 < 9:
            said, info = "all went well\n", {"message": f"no valid /job/results.json: {number} bytes"}
            code = 0
        else:
            said = f"Segmentation fault at 0x7f{number:x}\n"
        logs = [StageLog(stage=0, stdout="", stderr=said)]
        return told_by(Reason.STAGE_FAILED, [{"exit_code": code, **info}], logs, {"NET_ID": name})[1]

    assert Counter(map(cause, range(300))) == {
        "NameError: name '…' is not defined": 150,
        "<NET_ID>.c:#: error: expected '…', got #": 90,
        "no valid /job/results.json: # bytes": 30,
        "Segmentation fault at <address>": 30,
    }


def test_of_a_limit_the_grader_knows_the_cause() -> None:
    logs = [StageLog(stage=0, stdout="error: mine", stderr="")]
    info = [{"exit_code": None, "reason": "timeout", "message": "took longer than 30 s"}]
    assert told_by(Reason.TIMEOUT, info, logs) == ("took longer than 30 s", "took longer than # s")
    assert told_by(Reason.WORKER_LOST, [], []) == ("", "")


def test_whatever_was_printed_a_cause_is_short_and_found_soon() -> None:
    hostile = [
        "a" * 2_000_000,
        "1" * 500_000,
        "\x1b[" * 500_000,
        "0x" * 500_000,
        "a1" * 500_000 + "\n",
        "\x1b]" + "x" * 1_000_000,
        "\n" * 1_000_000,
        "-" * 1_000_000,
        "/tmp/" * 200_000,
    ]
    for text in hostile:
        begun = time.process_time()
        logs = [StageLog(stage=0, stdout=text, stderr=text)]
        assert all(len(one) <= LONGEST for one in told_by(Reason.STAGE_FAILED, [{"exit_code": 1}], logs))
        assert time.process_time() - begun < 0.5
