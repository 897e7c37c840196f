"""A real API in a process of its own on an embedded store, and a worker that does as tests tell it."""

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
from broadway_client.client import Client

ROOT = Path(__file__).parents[2]
TOKEN = "token-of-the-clients-tests"
DEADLINE = 60.0  # seconds that anything may take before a test fails

Json = dict[str, Any]


class ApiProcess:
    """`api.py` on a port that stays the same over restarts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
        environment |= {"BROADWAY_TOKEN": TOKEN, "BROADWAY_DATA_DIR": str(self.directory / "data")}
        command: list[str | Path] = [sys.executable, ROOT / "api.py", "--port", str(self.port)]
        process = start(command, log=self.directory / "api.out", environment=environment)
        self._process = process

        def answers() -> bool:
            assert process.exit_code is None, process.output()
            try:
                return httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        until(answers)

    def stop(self) -> None:
        """Stop it as an operator does; its store stays."""
        if self._process is not None:
            assert self._process.stop(DEADLINE) in (0, -signal.SIGKILL), self._process.output()
            self._process = None

    def client(self, **named: Any) -> Client:
        """A client for it."""
        return Client(self.url, TOKEN, **named)


class FakeWorker:
    """A worker that reports whatever it is told to."""

    def __init__(self, api: ApiProcess, **fields: Any) -> None:
        self._http = httpx.Client(
            base_url=f"{api.url}/api/v1/", headers={"Authorization": TOKEN}, timeout=DEADLINE, trust_env=False
        )
        registered = self._data("POST", "worker_register", {"hostname": "grader-1", "slots": 2, **fields})
        self.id = str(registered["worker_id"])
        self._http.headers["worker_id"] = self.id

    def close(self) -> None:
        """Fall silent."""
        self._http.close()

    def leave(self) -> None:
        """Deregister, so that no later test waits for this worker, and fall silent."""
        self._data("DELETE", f"worker/{self.id}")
        self.close()

    def claim(self) -> Json:
        """A job that must be there."""
        return self._data("GET", "grading_job")

    def report(self, job: Json, *info: Json, reason: str | None = None) -> None:
        """End a claimed job: with a reason it failed."""
        body = {"success": reason is None, "info": list(info), "attempt": job["attempt"]}
        self._data("POST", f"grading_job/{job['job_id']}", body | ({"reason": reason} if reason else {}))

    def post(self, job: Json, *output: Json) -> list[str]:
        """Post what a claimed job prints; who follows it."""
        body = {"attempt": job["attempt"], "output": list(output)}
        return list(self._data("POST", f"grading_job/{job['job_id']}/output", body)["followed"])

    def until_followed(self, job: Json) -> None:
        """Wait until somebody follows a claimed job."""
        until(lambda: self.post(job) != [])

    def work(self, outcome: Callable[[Json], tuple[Json, str | None]]) -> None:
        """Take jobs until there are none; `outcome` says of a job's first stage's env what is reported."""
        while True:
            answer = self._http.get("grading_job")
            if answer.status_code == 498:
                return
            job = answer.json()["data"]
            info, reason = outcome(job["stages"][0]["env"])
            self.report(job, info, reason=reason)

    def _data(self, method: str, path: str, body: Json | None = None) -> Json:
        answer = self._http.request(method, path, json=body)
        assert answer.is_success, answer.text
        return dict(answer.json()["data"])


def piece(start: int, text: str, stream: str = "stdout", stage: int = 0) -> Json:
    """A piece of output."""
    return {"stage": stage, "stream": stream, "start": start, "text": text}


def run_config(*students: str, **changes: Any) -> Json:
    """A run of these students with one stage."""
    return {
        "students": [{"NET_ID": name} for name in students],
        "student_pipeline": [{"image": "course/grade:1"}],
    } | changes


def failing(env: Json) -> tuple[Json, str | None]:
    """Bob's program fails, everybody else's does not."""
    if env["NET_ID"] != "bob":
        return {"exit_code": 0, "stdout": "all is well\n"}, None
    return {"exit_code": 3, "reason": "stage_failed", "stderr": "ValueError: no idea\n"}, "stage_failed"


def until(condition: Callable[[], bool]) -> None:
    """Ask until it is so; fail after DEADLINE seconds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
