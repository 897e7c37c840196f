"""`make demo`, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broadway_client.cli.processes import Process, start
from scripts.demo import EXPECTED, SAMPLE
from tests.e2e.fleet import ROOT
from tests.e2e.leftovers import containers_of, kill_processes_of, processes_of, remove_containers_of


@contextmanager
def demo(directory: Path, runtime: str) -> Iterator[Process]:
    """A running demo whose every temporary file is below `directory`."""
    command = [sys.executable, "-m", "scripts.demo", "--runtime", runtime]
    environment = {**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    process = start(command, log=directory / "demo.out", environment=environment)
    try:
        yield process
    finally:
        process.kill()
        kill_processes_of(directory)
        remove_containers_of(directory)


def await_output(process: Process, pattern: str) -> None:
    deadline = time.monotonic() + 60
    while not re.search(pattern, process.output()):
        assert time.monotonic() < deadline, process.output()
        assert process.exit_code is None, process.output()
        time.sleep(0.05)


def await_no_process_of(directory: Path) -> None:
    deadline = time.monotonic() + 15
    while left := processes_of(directory):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_the_sample_has_an_expected_outcome_for_every_student() -> None:
    students = json.loads(SAMPLE.read_text())["students"]
    assert [student["NET_ID"] for student in students] == list(EXPECTED)
    assert len(students) >= 12
    assert {"timeout", "stage_failed", "score 100", "score 50"} <= set(EXPECTED.values())


def test_the_demo_grades_the_sample_shows_it_and_leaves_nothing(tmp_path: Path, runtime: str) -> None:
    begun = time.monotonic()
    with demo(tmp_path, runtime) as process:
        assert process.wait(120) == 0, process.output()
    output = process.output()

    assert time.monotonic() - begun < 60
    assert f"stages run in the {runtime} runtime" in output
    for student, expected in EXPECTED.items():
        assert re.search(rf"{student} .*{expected}", output), output
    assert "14 students graded" in output
    assert [path.name for path in tmp_path.iterdir()] == ["demo.out"]
    assert containers_of(tmp_path) == []
    await_no_process_of(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_everything(tmp_path: Path, runtime: str, number: signal.Signals) -> None:
    with demo(tmp_path, runtime) as process:
        await_output(process, "[1-9][0-9]* running")
        process.send(number)
        assert process.wait(40) == 130, process.output()
    assert [path.name for path in tmp_path.iterdir()] == ["demo.out"]
    assert containers_of(tmp_path) == []
    await_no_process_of(tmp_path)


def test_a_killed_demo_takes_its_processes_with_it(tmp_path: Path) -> None:
    with demo(tmp_path, "sandbox") as process:
        await_output(process, "[1-9][0-9]* running")
        process.send(signal.SIGKILL)
        process.wait(5)
        await_no_process_of(tmp_path)
