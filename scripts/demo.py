"""`make demo`: `broadway dev` and a class of fourteen, from nothing to grades and the causes of failures.

It runs the commands that README.md begins with, shown as they would be typed, on a free port of the loopback interface
and in a temporary directory. Both are gone at its end, also after Ctrl-C; on Linux, even a demo that is killed takes
its processes with it. With `--keep` the cluster goes on in the background until `--stop`. Installs nothing, needs no
root.

Exits 0 if the run finished, every student got the outcome expected of them, and post-processing saw all of their
scores; 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors

from broadway_client.cli import processes, watch
from broadway_client.cli.main import main as broadway
from broadway_client.cli.session import Session
from broadway_client.client import Client
from broadway_client.errors import ClientError
from broadway_client.models import Job, RunState

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "utils" / "grading_run.json"
IMAGE = "broadway-python:latest"

#: Temporary directories of demos, by which `--stop` finds those that were kept.
_PREFIX, _PID = "broadway-demo-", "pid"

#: How long the cluster may take to start, and the run to end: a machine that is slower than this cannot be told from
#: one that is stuck.
_START_SECONDS, _RUN_SECONDS = 150.0, 240.0
#: What runs may finish for so long before it is stopped; and how long that may take.
_PATIENCE_SECONDS, _STOP_SECONDS = 3.0, 60.0

#: What grading the sample must come to: a score of 100, or the reason why there is none.
EXPECTED: dict[str, float | str] = {
    "abaker2": 100.0,
    "bchen14": 100.0,
    "cdiaz3": 100.0,
    "devans7": 100.0,
    "efrost": 75.0,  # every fourth year
    "fgreen21": 75.0,  # forgot the centuries that are leap years
    "ghill5": 50.0,  # always says yes
    "hito9": 100.0,
    "ijones4": "stage_failed",  # a syntax error
    "jkhan12": 75.0,  # efrost's mistake, by recursion
    "klopez8": "stage_failed",  # leaves with exit code 3
    "lmeyer": "timeout",  # loops for ever
    "mnguyen6": 100.0,
    "nowens11": "stage_failed",  # raises an exception
}


class DemoFailed(Exception):
    """The demo did not come to what it promises, and why."""


def say(line: str) -> None:
    """A line of the demo's own, between those of the commands."""
    print(f"demo: {line}", flush=True)


# --- what runs the stages --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs the stages, and why that was chosen."""

    name: str
    because: str


def choose_runtime(wanted: str) -> Runtime:
    """Docker if its engine answers and has the sample's image or can be given it; else the sandbox."""
    if wanted == "sandbox":
        return Runtime(name="sandbox", because="asked for")
    because = _docker_fault()
    if because is None:
        return Runtime(name="docker", because=f"a Docker engine answers and has the image {IMAGE}")
    if wanted == "docker":
        raise DemoFailed(f"Docker cannot be used: {because}")
    return Runtime(name="sandbox", because=because)


def _docker_fault() -> str | None:
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


# --- the cluster -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A `broadway dev` in a directory of its own."""

    directory: Path
    url: str
    dev: processes.Process

    @property
    def token(self) -> str:
        return (self.directory / "data" / "cluster_token").read_text().strip()

    def check(self) -> None:
        """Raise DemoFailed, with the end of its output, if it has ended."""
        if self.dev.exit_code is not None:
            tail = "\n".join(self.dev.output().splitlines()[-15:])
            raise DemoFailed(f"`broadway dev` has ended with exit code {self.dev.exit_code}:\n{tail}")

    def stop(self) -> None:
        """Stop it. What students' jobs run gets a moment, then its grader hands it back."""
        for seconds in (_PATIENCE_SECONDS, _STOP_SECONDS):
            self.dev.send(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                self.dev.wait(seconds)
                return
        self.dev.kill()


@contextmanager
def cluster(runtime: str, *, keep: bool) -> Iterator[Cluster]:
    """A running cluster; afterwards nothing of it is left, unless it is to be kept and all went well."""
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    started: Cluster | None = None
    is_kept = False
    try:
        port = processes.free_port()
        options = ("--port", str(port), "--data-dir", str(directory / "data"), "--runtime", runtime)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
        environment["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-m", "broadway_client.cli", "dev", *options]
        print(f"$ broadway dev {' '.join(options)} &", flush=True)
        dev = processes.start(command, log=directory / "dev.out", environment=environment, outlives_us=keep)
        started = Cluster(directory=directory, url=f"http://127.0.0.1:{port}", dev=dev)
        deadline = time.monotonic() + _START_SECONDS
        while "Broadway is ready." not in dev.output():
            started.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"`broadway dev` is not ready after {_START_SECONDS:.0f} s:\n{dev.output()}")
            time.sleep(0.1)
        yield started
        if keep:
            (directory / _PID).write_text(str(dev.pid))
            is_kept = True
    finally:
        if not is_kept:
            if started is not None:
                started.stop()
            shutil.rmtree(directory, ignore_errors=True)


def stop_kept() -> int:
    """Stop and remove every demo of this person's that was kept; how many that were."""
    found = [
        path for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_PID}") if path.stat().st_uid == os.getuid()
    ]
    for path in found:
        pid, deadline = int(path.read_text()), time.monotonic() + _STOP_SECONDS
        pause = _PATIENCE_SECONDS
        while _is_dev_of(path.parent, pid):
            if time.monotonic() > deadline:
                raise DemoFailed(f"process {pid} has not ended after {_STOP_SECONDS:.0f} s; see {path.parent}")
            os.kill(pid, signal.SIGTERM)  # the second makes it stop what it still grades
            again = time.monotonic() + pause
            while _is_dev_of(path.parent, pid) and time.monotonic() < again:
                time.sleep(0.1)
            pause = _STOP_SECONDS
        shutil.rmtree(path.parent)
    return len(found)


def _is_dev_of(directory: Path, pid: int) -> bool:
    """Whether that process is still the one that was started there: numbers of processes are used again."""
    shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return str(directory) in shown.stdout


# --- the run ---------------------------------------------------------------------------------------------------------


def demo(wanted: str, *, keep: bool) -> None:
    """Grade the sample; DemoFailed if it does not come to what it should."""
    runtime = choose_runtime(wanted)
    say(f"stages run in the {runtime.name} runtime: {runtime.because}")
    with cluster(runtime.name, keep=keep) as started:
        os.environ |= {"BROADWAY_API": started.url, "BROADWAY_TOKEN": started.token}  # for the commands below
        begun = time.monotonic()
        try:
            with Client(started.url, started.token) as client:
                run_id = client.create_run(SAMPLE.read_bytes()).grading_run_id
                client.start_run(run_id)
                print(f"$ broadway run submit {SAMPLE.relative_to(ROOT)} --watch", flush=True)
                state = asyncio.run(_watched(started, run_id))
                seconds = time.monotonic() - begun
                _show("run", "results", "latest")
                _show("run", "report", "latest")
                unexpected = list(_unexpected(client, run_id, state))
        except ClientError as error:
            started.check()  # a process that died says more than a connection that was refused
            raise DemoFailed(str(error)) from error
        if unexpected:
            raise DemoFailed("not as expected: " + "; ".join(unexpected))
        say(f"{len(EXPECTED)} students graded in {seconds:.0f} s, each as expected")
        if keep:
            say("it goes on in the background; to stop it and remove all of it: make demo-stop")
            say(f"for commands: export BROADWAY_API={started.url} BROADWAY_TOKEN={started.token}")
            say(f"the dashboard: {started.url}/ with the token {started.token}")
        else:
            say("it is gone again; to look around in its dashboard: make demo KEEP=1")


async def _watched(started: Cluster, run_id: str) -> RunState:
    session = Session(api=started.url, token=started.token, ca_certificate=None, as_json=False)
    watching = asyncio.create_task(watch.watch(session, run_id))
    try:
        async with asyncio.timeout(_RUN_SECONDS):
            while not watching.done():
                started.check()
                await asyncio.wait({watching}, timeout=0.25)
    except TimeoutError:
        raise DemoFailed(f"the run has not ended after {_RUN_SECONDS:.0f} s") from None
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)  # it gives the screen back
    return watching.result().state


def _show(*words: str) -> None:
    """Run a command of ours as if it were typed here."""
    print(f"\n$ broadway {' '.join(words)}", flush=True)
    if code := broadway(words):
        raise DemoFailed(f"that ended with exit code {code}")


def _unexpected(client: Client, run_id: str, state: RunState) -> Iterator[str]:
    """What differs from what the sample must come to."""
    if state is not RunState.FINISHED:
        yield f"the run ended as {state.value}"
    graded = {str(job.student["NET_ID"]): _outcome(job) for job in client.jobs(run_id) if job.student}
    for student, expected in EXPECTED.items():
        if (outcome := graded.get(student)) != expected:
            yield f"{student}: {outcome} in place of {expected}"
    # The sealed scores, as the last job had them in /job/jobs.json, and no other job has.
    scores = [score for score in EXPECTED.values() if isinstance(score, float)]
    told = f"{len(scores)} scores, {sum(scores) / len(scores):.1f} on average"
    last = client.run(run_id).post_processing_job
    printed = "" if last is None else "".join(stage.stdout for stage in client.job_log(last.job_id).stages)
    if told not in printed:
        yield f"post-processing printed {printed!r}, without {told!r}"


def _outcome(job: Job) -> float | str:
    """Its score, or why there is none."""
    if job.state.value == "succeeded" and job.score is not None:
        return job.score
    return job.reason.value if job.reason else job.state.value


def _interrupt(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it is stopping, and nothing must be left behind
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
    parser.add_argument("--keep", action="store_true", help="leave it running, to look around [make demo KEEP=1]")
    parser.add_argument("--stop", action="store_true", help="stop and remove what was kept [make demo-stop]")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        if options.stop:
            say(f"{stop_kept()} stopped and removed")
        else:
            demo(options.runtime, keep=options.keep)
    except DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted, everything is stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
