"""A real Broadway for one test: `api.py` and any number of `grader.py` as processes of their own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from broadway_client.cli.processes import Process, free_port, start
from scripts.start_run_script import ENDED, Api, Status
from tests.e2e.leftovers import containers_of, kill_processes_of, processes_of, remove_containers_of, unmount_below

ROOT = Path(__file__).parents[2]
TOKEN = "e2e-cluster-token-of-nobody"
POLL_SECONDS = 0.1

Job = dict[str, Any]


class Fleet:
    """Starts, stops and kills the processes of one Broadway, and watches it by its API alone."""

    def __init__(self, directory: Path, store_url: str = "") -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{free_port()}"
        self.client = Api(self.url, TOKEN, patience=30)
        self.api: Process | None = None
        self.graders: dict[str, Process] = {}
        self._store_url = store_url

    def start_api(self) -> Process:
        """Start the API, for the first time or again, and wait until it answers."""
        self.api = self._start("api", "--port", self.url.rpartition(":")[2], "--data-dir", str(self.directory / "data"))
        self.wait_for(self._answers, "the API to answer")
        return self.api

    def start_grader(self, name: str = "grader", *, runtime: str, slots: int = 2, **options: str) -> Process:
        """Start a grader with a work directory named for it, and wait until the API lists it with its slots."""
        known = self._worker_ids()
        more = [word for option, value in options.items() for word in (f"--{option.replace('_', '-')}", value)]
        self.graders[name] = self._start(
            "grader",
            *("--api", self.url, "--runtime", runtime, "--slots", str(slots)),
            *("--work-dir", str(self.work(name)), *more),
            log=name,
        )
        self.wait_for(lambda: self._worker_ids() - known, f"{name} to register", self.graders[name])
        return self.graders[name]

    def work(self, grader: str) -> Path:
        """The grader's work directory."""
        return self.directory / grader

    def grade(self, config: object) -> str:
        """Create and start a run; its id."""
        run_id = self.client.create_run(config)
        self.client.start_run(run_id)
        return run_id

    def finish(self, run_id: str, seconds: float = 180) -> Status:
        """The run once it has ended, and what its end makes of its last jobs has been seen to."""

        def is_over() -> bool:
            run = self.client.run(run_id)
            return run["state"] in ENDED and not any(run["counts"][state] for state in ("waiting", "queued", "running"))

        self.wait_for(is_over, f"run {run_id} to end", seconds=seconds)
        return self.client.run(run_id)

    def jobs(self, run_id: str, kind: str = "student") -> list[Job]:
        """The run's jobs of one type, in roster order."""
        return [job for job in self.client.jobs(run_id) if job["type"] == kind]

    def stdout(self, job: Job) -> dict[int, str]:
        """What each stage of a job printed, by its number; a stage that wrote nothing is not in it."""
        return {log["stage"]: log["stdout"] for log in self.client.log(job["job_id"])}

    def await_running(self, run_id: str, count: int = 1) -> list[Job]:
        """The run's running student jobs, once there are at least so many."""

        running: list[Job] = []

        def enough() -> bool:
            running[:] = [job for job in self.jobs(run_id) if job["state"] == "running"]
            return len(running) >= count

        self.wait_for(enough, f"{count} jobs of run {run_id} to run")
        return running  # as they were then: a second look might come too late

    def alive_workers(self) -> list[dict[str, Any]]:
        """What the API says of the workers that it takes to be alive."""
        workers: list[dict[str, Any]] = self.client.get("workers")["workers"]
        return [worker for worker in workers if worker["state"] == "alive"]

    def wait_for(
        self, condition: Callable[[], object], what: str, process: Process | None = None, *, seconds: float = 90
    ) -> None:
        """Poll until the condition holds; fails with the fleet's output after `seconds`, or when `process` ends."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or (process is not None and process.exit_code is not None):
                raise AssertionError(f"waited in vain for {what}\n{self.output()}")
            time.sleep(POLL_SECONDS)

    def output(self) -> str:
        """The end of what each process has written."""
        logs = sorted(self.directory.glob("*.out"))
        return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-25:]) for log in logs)

    def stop(self) -> None:
        """Stop everything, the graders first, as gently as it goes."""
        graders = list(self.graders.values())
        for grader in graders:
            grader.send(signal.SIGTERM)
        for grader in graders:
            grader.stop(20)
        if self.api is not None:
            self.api.stop(10)

    def kill(self) -> None:
        """Kill every process and whatever containers they left; for the end of a test that failed half way."""
        for process in (*self.graders.values(), *([self.api] if self.api else [])):
            process.kill()
        kill_processes_of(self.directory)
        remove_containers_of(self.directory)
        unmount_below(self.directory)

    def leftovers(self) -> list[str]:
        """What this fleet left on this machine: containers, /job directories, processes."""
        directories = [str(path) for path in self.directory.glob("*/jobs/*")]
        return [*containers_of(self.directory), *directories, *processes_of(self.directory).values()]

    def _start(self, program: str, *options: str, log: str = "") -> Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
        environment |= {"BROADWAY_TOKEN": TOKEN, "BROADWAY_SELF_TEST_AT_START": "never"}
        if program == "api":
            environment |= {"BROADWAY_STORE": self._store_url, "BROADWAY_HEARTBEAT_INTERVAL": "1"}
            environment["BROADWAY_LEASE_SECONDS"] = "5"
        command = [sys.executable, str(ROOT / f"{program}.py"), *options]
        return start(command, log=self.directory / f"{log or program}.out", environment=environment)

    def _worker_ids(self) -> set[str]:
        return {worker["worker_id"] for worker in self.alive_workers()}

    def _answers(self) -> bool:
        assert self.api is not None
        assert self.api.exit_code is None, self.output()
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).is_success
        except httpx.TransportError:
            return False
