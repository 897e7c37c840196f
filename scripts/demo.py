"""`make demo`: an API, a grader and a class of fourteen, from nothing to a table of results.

Everything it starts lives in a temporary directory and on a free port of the loopback interface, and is stopped
again, also after Ctrl-C; on Linux, even a demo that is killed takes its processes with it. Installs nothing and needs
no root.

Exits 0 if the run finished and every student got the outcome expected of them, 1 if not.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import docker.errors
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from broadway_client.cli import processes
from scripts.start_run_script import Api, ScriptError, Status, follow, progress, read_config

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "utils" / "grading_run.json"
IMAGE = "broadway-python:latest"

#: How long the run may take: a machine that is slower than this cannot be told from a run that is stuck.
_RUN_SECONDS = 240.0
_STOP_SECONDS = 15.0

#: What grading the sample must come to: a score, or the reason why there is none.
EXPECTED = {
    "abaker2": "score 100",
    "bchen14": "score 100",
    "cdiaz3": "score 100",
    "devans7": "score 100",
    "efrost": "score 75",  # every fourth year
    "fgreen21": "score 75",  # forgot the centuries that are leap years
    "ghill5": "score 50",  # always says yes
    "hito9": "score 100",
    "ijones4": "stage_failed",  # a syntax error
    "jkhan12": "score 75",  # efrost's mistake, by recursion
    "klopez8": "stage_failed",  # leaves with exit code 3
    "lmeyer": "timeout",  # loops for ever
    "mnguyen6": "score 100",
    "nowens11": "stage_failed",  # raises an exception
}


class DemoFailed(Exception):
    """The demo did not come to what it promises, and why."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs the stages, and why that was chosen."""

    name: str
    because: str


def choose_runtime(wanted: str, say: Callable[[str], None]) -> Runtime:
    """Docker if its engine answers and has the sample's image or can be given it; else the sandbox."""
    if wanted == "sandbox":
        return Runtime(name="sandbox", because="asked for")
    because = _docker_fault(say)
    if because is None:
        return Runtime(name="docker", because=f"a Docker engine answers and has the image {IMAGE}")
    if wanted == "docker":
        raise DemoFailed(f"Docker cannot be used: {because}")
    return Runtime(name="sandbox", because=because)


def _docker_fault(say: Callable[[str], None]) -> str | None:
    """Why the sample cannot run in Docker; None if it can. Makes the image if that takes nothing but time."""
    try:
        client = docker.from_env(timeout=10)
    except docker.errors.DockerException:
        return "no Docker engine answers"
    try:
        client.images.get(IMAGE)
        return None
    except docker.errors.ImageNotFound:
        pass
    except docker.errors.DockerException as error:
        return f"the Docker engine does not answer properly ({type(error).__name__})"
    finally:
        client.close()
    tarball = ROOT / ".services" / "broadway-python.tar.gz"
    if not tarball.exists() and (os.geteuid() != 0 or _which("debootstrap") is None):
        return f"the Docker engine lacks the image {IMAGE}; `make services` makes it"
    say(f"making the image {IMAGE} for Docker, once; this may take a minute")
    made = subprocess.run(
        [ROOT / "scripts" / "make_images.sh", "python"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if made.returncode == 0:
        return None
    return f"the image {IMAGE} could not be made ({(made.stderr.splitlines() or ['?'])[-1]})"


def _which(command: str) -> str | None:
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Fleet:
    """An API with its embedded store and one grader, for the length of a `with`."""

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime
        self._stack = ExitStack()
        self._children: dict[str, processes.Process] = {}

    def __enter__(self) -> Api:
        with self._stack as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="broadway-demo-")))
            token = secrets.token_urlsafe()
            # Only by the environment: a command line can be read by everybody on this machine.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
            environment["BROADWAY_TOKEN"] = token
            port = processes.free_port()
            url = f"http://127.0.0.1:{port}"
            self._start("api", directory, environment, "--port", str(port), "--data-dir", str(directory / "data"))
            # Nothing is mounted that a killed demo, which nobody starts again, would leave behind.
            work = ("--work-dir", str(directory / "work"), "--job-bound", "watch", "--self-test-image", IMAGE)
            self._start("grader", directory, environment, "--api", url, "--runtime", self._runtime, *work)
            self._stack = stack.pop_all()
        return Api(url, token, patience=20)

    def __exit__(self, *_: object) -> None:
        self._stack.close()  # the grader first: it still has to say goodbye to the API

    def check(self) -> None:
        """Raise DemoFailed, with the end of its output, if one of the processes has ended."""
        for name, child in self._children.items():
            if child.exit_code is not None:
                tail = "\n".join(child.output().splitlines()[-15:])
                raise DemoFailed(f"{name}.py ended with exit code {child.exit_code}:\n{tail}")

    def _start(self, name: str, directory: Path, environment: Mapping[str, str], *options: str) -> None:
        command = [sys.executable, str(ROOT / f"{name}.py"), *options]
        child = processes.start(command, log=directory / f"{name}.out", environment=environment)
        self._stack.callback(child.stop, _STOP_SECONDS)
        self._children[name] = child


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One row of the table of results."""

    job: Mapping[str, Any]
    words: str  # its score, or the last line that the last stage wrote, or how that stage ended

    @property
    def who(self) -> str:
        student = self.job["student"]
        return str(student["NET_ID"]) if student else str(self.job["type"]).replace("_", "-")

    @property
    def seconds(self) -> float:
        if not self.job["started_at"] or not self.job["finished_at"]:
            return 0.0
        return (_time(self.job["finished_at"]) - _time(self.job["started_at"])).total_seconds()

    @property
    def is_expected(self) -> bool:
        """Whether this is what the sample must come to; pre- and post-processing must succeed."""
        if not self.job["student"]:
            return bool(self.job["state"] == "succeeded")
        expected = EXPECTED.get(self.who, "no such student")
        return self.words.startswith(expected) if self.job["state"] == "succeeded" else self.job["reason"] == expected


def outcomes(api: Api, run_id: str) -> list[Outcome]:
    """What became of each job, in roster order."""
    return [Outcome(job=job, words=_words(api, job)) for job in api.jobs(run_id)]


def _words(api: Api, job: Mapping[str, Any]) -> str:
    if job["score"] is not None:
        return f"score {job['score']:g} of {job['max_score']:g}"
    ran = api.get(f"grading_job/{job['job_id']}")["info"]
    if not ran:
        return ""
    last = len(ran) - 1
    written = "".join(log["stdout"] + log["stderr"] for log in api.log(job["job_id"]) if log["stage"] == last)
    lines = written.strip().splitlines()
    if not lines:
        return str(ran[last].get("message") or f"exit code {ran[last].get('exit_code')}")
    # Student code wrote it: it is cut, and made fit for a terminal.
    return "".join(character for character in lines[-1][:200] if character.isprintable())


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def table(rows: Sequence[Outcome]) -> Table:
    """The results: student, state, reason, seconds and score, or the last line written instead."""
    shown = Table("student", "state", "reason", Column("seconds", justify="right"), "score, or what it said last")
    for row in rows:
        state = str(row.job["state"])
        style = "" if row.job["student"] else "dim"
        shown.add_row(
            row.who,
            Text(state, style="green" if state == "succeeded" else "red"),
            Text(row.job["reason"] or ""),
            f"{row.seconds:.1f}",
            Text(row.words),
            style=style,
            end_section=row.job["type"] == "pre_processing" or row is rows[-2],
        )
    return shown


def demo(wanted: str, console: Console) -> None:
    """Grade the sample; DemoFailed if it does not come to what it should."""
    runtime = choose_runtime(wanted, lambda line: console.print(f"demo: {line}", highlight=False))
    console.print(f"demo: stages run in the {runtime.name} runtime: {runtime.because}", highlight=False)
    fleet = Fleet(runtime.name)
    with fleet as api, progress(sys.stderr) as show:
        begun = time.monotonic()

        def watch(status: Status) -> None:
            show(status)
            fleet.check()
            if time.monotonic() - begun > _RUN_SECONDS:
                raise DemoFailed(f"the run has not ended after {_RUN_SECONDS:.0f} s: {status['counts']}")

        try:
            run_id = api.create_run(read_config(SAMPLE))
            api.start_run(run_id)
            end = follow(api, run_id, watch, pause=0.25)
            rows = outcomes(api, run_id)
        except ScriptError as error:
            fleet.check()  # a process that died says more than a connection that was refused
            raise DemoFailed(str(error)) from error
    console.print(table(rows))
    unexpected = [
        f"{row.who}: {row.job['state']} {row.job['reason'] or row.words}" for row in rows if not row.is_expected
    ]
    if end["state"] != "finished":
        raise DemoFailed(f"the run ended as {end['state']}")
    if unexpected:
        raise DemoFailed("not the expected outcome: " + "; ".join(unexpected))
    students = sum(1 for row in rows if row.job["student"])
    console.print(
        f"demo: {students} students graded in {time.monotonic() - begun:.0f} s, each as expected", highlight=False
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Run the demo; its exit code."""
    parser = argparse.ArgumentParser(prog="demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--runtime",
        choices=("auto", "docker", "sandbox"),
        default=os.environ.get("BROADWAY_DEMO_RUNTIME") or "auto",
        help="what runs the stages [BROADWAY_DEMO_RUNTIME, default auto]",
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ.update(no_proxy="127.0.0.1", NO_PROXY="127.0.0.1")  # everything here stays on this machine
    try:
        demo(options.runtime, Console())
    except DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted, everything is stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
