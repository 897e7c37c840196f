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
from broadway_client.client import Client
from broadway_client.models import RunState
from scripts.demo import EXPECTED, SAMPLE
from tests.e2e.fleet import ROOT
from tests.e2e.leftovers import containers_of, kill_processes_of, processes_of, remove_containers_of


@contextmanager
def demo(directory: Path, *options: str) -> Iterator[Process]:
    """A running demo whose every temporary file is below `directory`."""
    command = [sys.executable, "-m", "scripts.demo", *options]
    environment = {**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(ROOT)}
    process = start(command, log=directory / "demo.out", environment=environment)
    try:
        yield process
    finally:
        process.kill()
        kill_processes_of(directory)
        remove_containers_of(directory)


def await_running_job(process: Process) -> None:
    """Return while a job of the demo's run is running, as the API says: its output is a line every few seconds."""
    deadline = time.monotonic() + 60
    while not (begun := re.search(r"--port (\d+) --data-dir (\S+)(?s:.*)run submit", process.output())):
        assert time.monotonic() < deadline, process.output()
        assert process.exit_code is None, process.output()
        time.sleep(0.05)
    with Client(f"http://127.0.0.1:{begun[1]}", Path(begun[2], "cluster_token").read_text().strip()) as client:
        (run,) = client.runs()
        while not client.run(run.grading_run_id).counts.get("running"):
            assert time.monotonic() < deadline, process.output()
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
    assert {"timeout", "stage_failed", 100.0, 50.0} <= set(EXPECTED.values())


def test_the_demo_grades_the_sample_shows_it_and_leaves_nothing(tmp_path: Path, runtime: str) -> None:
    begun = time.monotonic()
    with demo(tmp_path, "--runtime", runtime) as process:
        assert process.wait(120) == 0, process.output()
    output = process.output()

    assert time.monotonic() - begun < 60
    assert f"stages run in the {runtime} runtime" in output
    for student, expected in EXPECTED.items():
        shown = f"{expected:g}\t100" if isinstance(expected, float) else expected
        assert re.search(rf"^{student}\t.*\t{shown}\t", output, re.MULTILINE), output
    assert "SyntaxError" in output  # why ijones4 failed
    assert "14 students graded" in output
    assert [path.name for path in tmp_path.iterdir()] == ["demo.out"]
    assert containers_of(tmp_path) == []
    await_no_process_of(tmp_path)


def test_a_demo_may_be_kept_to_look_around(tmp_path: Path) -> None:
    with demo(tmp_path, "--runtime", "sandbox", "--keep") as process:
        assert process.wait(120) == 0, process.output()
        told = re.search(r"^demo: the dashboard: (http://\S+)/ with the token (\S+)$", process.output(), re.MULTILINE)
        assert told is not None, process.output()
        with Client(told[1], told[2]) as client:
            assert [run.state for run in client.runs()] == [RunState.FINISHED]
        with demo(tmp_path, "--stop") as stopping:
            assert stopping.wait(60) == 0, stopping.output()
        assert [path.name for path in tmp_path.iterdir()] == ["demo.out"]
        await_no_process_of(tmp_path)


def test_a_demo_whose_cluster_dies_has_failed(tmp_path: Path) -> None:
    with demo(tmp_path, "--runtime", "sandbox") as process:
        await_running_job(process)
        (grader,) = (pid for pid, line in processes_of(tmp_path).items() if "grader.py" in line)
        os.kill(grader, signal.SIGKILL)
        assert process.wait(60) == 1, process.output()
    assert "the grader has ended with exit code -9" in process.output()
    assert [path.name for path in tmp_path.iterdir()] == ["demo.out"]
    await_no_process_of(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_everything(tmp_path: Path, runtime: str, number: signal.Signals) -> None:
    with demo(tmp_path, "--runtime", runtime) as process:
        await_running_job(process)
        process.send(number)
        assert process.wait(40) == 130, process.output()
    assert [path.name for path in tmp_path.iterdir()] == ["demo.out"]
    assert containers_of(tmp_path) == []
    await_no_process_of(tmp_path)


def test_a_killed_demo_takes_its_processes_with_it(tmp_path: Path) -> None:
    with demo(tmp_path, "--runtime", "sandbox") as process:
        await_running_job(process)
        process.send(signal.SIGKILL)
        process.wait(5)
        await_no_process_of(tmp_path)
