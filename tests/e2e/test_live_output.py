"""A job's output on somebody's screen while it is printed, and all of it in the end, whatever happens to the API."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.classes import run_config, stage
from tests.e2e.fleet import ROOT, TOKEN, Fleet

SCRIPT = """
touch /job/here
echo one
echo oops >&2
until test -e /job/go; do sleep 0.1; done
echo two
until test -e /job/end; do sleep 0.1; done
exit 3
"""


class Command:
    """`broadway job log --follow`, piped."""

    def __init__(self, fleet: Fleet, job_id: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
        environment |= {"BROADWAY_API": fleet.url, "BROADWAY_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "broadway_client.cli", "job", "log", "--follow", job_id],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=fleet.directory,
        )
        self.out = self.err = ""
        self._readers = [threading.Thread(target=self._read, args=(name,)) for name in ("out", "err")]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                setattr(self, name, getattr(self, name) + line)

    def wait(self) -> int:
        """Its exit code, with all that it wrote."""
        code = self.process.wait(90)
        for reader in self._readers:
            reader.join(30)
        return code


@pytest.fixture
def commands() -> Iterator[Callable[[Fleet, str], Command]]:
    """Starts them; at the end none is left."""
    started: list[Command] = []

    def start(fleet: Fleet, job_id: str) -> Command:
        started.append(Command(fleet, job_id))
        return started[-1]

    yield start
    for command in started:
        command.process.kill()
        command.wait()


@pytest.mark.parametrize(("store_url", "runtime"), [("sqlite", "docker"), ("mongo", "sandbox")], indirect=True)
def test_output_is_seen_while_it_is_printed_and_over_a_killed_api(
    fleets: Callable[[str], Fleet], store_url: str, runtime: str, commands: Callable[[Fleet, str], Command]
) -> None:
    fleet = fleets(store_url)
    api = fleet.start_api()
    run_id = fleet.client.create_run(run_config("-", stages=[stage("echo first"), stage(SCRIPT, timeout=120)]))
    (job,) = fleet.jobs(run_id)
    command = commands(fleet, job["job_id"])
    fleet.wait_for(lambda: "waiting" in command.err, "the command to say that the job waits")
    fleet.start_grader(runtime=runtime)
    fleet.client.start_run(run_id)

    fleet.wait_for(lambda: command.out == "first\none\n" and "oops\n" in command.err, "the beginning")
    api.kill()
    fleet.wait_for(lambda: "the API is away" in command.err, "the command to notice")
    fleet.start_api()
    (here,) = fleet.directory.rglob("here")
    (here.parent / "go").touch()
    fleet.wait_for(lambda: command.out == "first\none\ntwo\n", "what comes after")
    assert fleet.client.get(f"grading_job/{job['job_id']}")["state"] == "running"
    (here.parent / "end").touch()
    assert command.wait() == 0
    assert (command.out, command.err.count("oops")) == ("first\none\ntwo\n", 1)
    assert "it has failed: stage_failed" in command.err
    fleet.finish(run_id)
    assert fleet.stdout(job) == {0: "first\n", 1: "one\ntwo\n"}
    assert "Traceback" not in fleet.output()
