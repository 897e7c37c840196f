"""The servers that benchmarks ask, each a process of its own as in production, on free ports of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Connection, Load, Plan, ask_json
from broadway_client.cli.processes import Process, free_port, start

TOKEN = "benchmark-token"  # noqa: S105

#: Seconds that a server has to come up on a machine that does other things.
PATIENCE = 60

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Server:
    """A process that listens."""

    port: int
    process: Process

    @property
    def rss(self) -> int:
        """Bytes of memory that it holds."""
        return int(self._proc("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """CPU time that it has used, in user mode and in the kernel."""
        user, system = self._proc("stat").rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self.process.pid}/{name}").read_text()


def config_of(students: int) -> dict[str, Any]:
    """A run config as a course might write it."""
    return {
        "students": [{"NET_ID": f"student{number}", "SEED": number} for number in range(students)],
        "student_pipeline": [{"image": "grade:1", "env": {"COURSE": "cs101", "WHO": "$NET_ID"}, "entry_point": ["/g"]}],
        "env": {"SEMESTER": "fall"},
    }


async def start_run(server: Server, students: int) -> str:
    """A run of so many students, its jobs in the queue; its id."""
    connection = await Connection.open(server.port)
    created = await ask_json(connection, "POST", "/api/v1/grading_run", config_of(students), token=TOKEN)
    run_id = str(created["grading_run_id"])
    await ask_json(connection, "POST", f"/api/v1/grading_run/{run_id}", token=TOKEN)
    connection.close()
    return run_id


async def load(plan: Plan) -> Load:
    """What the load program did in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(plan))]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load program broke: {plan}")
    return Load(**json.loads(output))


@asynccontextmanager
async def empty_server() -> AsyncIterator[Server]:
    """Tornado with a handler that does nothing."""
    port = free_port()
    async with _running([sys.executable, "-m", "benchmarks.empty_server", str(port)], port, {}) as server:
        yield server


@asynccontextmanager
async def api(store_url: str = "", *options: str) -> AsyncIterator[Server]:
    """`api.py` on a store; without one on SQLite, in a temporary directory. Its files go when it ends."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="broadway-bench-") as directory:
        command = [sys.executable, "api.py", "--port", str(port), "--data-dir", directory, *options]
        settings = {"BROADWAY_TOKEN": TOKEN, "BROADWAY_STORE": store_url}
        async with _running(command, port, settings) as server:
            yield server


@asynccontextmanager
async def _running(command: list[str], port: int, settings: dict[str, str]) -> AsyncIterator[Server]:
    with tempfile.NamedTemporaryFile(prefix="broadway-bench-", suffix=".log") as log:
        environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
        process = start(command, log=Path(log.name), environment=environment)
        try:
            await _listening(process, port)
            yield Server(port=port, process=process)
        finally:
            process.stop(10)


async def _listening(process: Process, port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            (await Connection.open(port)).close()
            return
        except OSError:
            if process.exit_code is not None or time.monotonic() > deadline:
                raise TimeoutError(f"it does not listen; its log:\n{process.output()}") from None
            await asyncio.sleep(0.1)
