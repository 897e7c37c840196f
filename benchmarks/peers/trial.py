"""One system, started, warmed up, measured and stopped."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.cpu import cpu_seconds
from benchmarks.peers.brokers import Broker
from benchmarks.peers.systems import System
from benchmarks.servers import ROOT
from broadway_client.cli.processes import start

#: Jobs that warm up what takes the first ones longer: connections, caches, lazily imported modules.
WARM_UP = 100


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one system did once."""

    jobs_per_second: float
    handing_in: float  # seconds, of all jobs
    cpu: float  # seconds per 1,000 jobs: broker, workers and whoever handed them in
    latencies: list[float]  # seconds


class TrialFailed(Exception):
    """A system that did not do what it was started for, with what it wrote."""


async def run(system: System, rabbitmq: Broker, *, jobs: int, latencies: int) -> Trial:
    """A trial. Raises TrialFailed."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="broadway-peer-")))
        setting = await stack.enter_async_context(system.provide(rabbitmq))
        environment = {**os.environ, **setting.environment, "PYTHONPATH": str(ROOT)}
        workers = [start(command, log=directory / "workers.log", environment=environment) for command in system.workers]
        for worker in workers:
            stack.callback(worker.kill)
        dispatcher = Dispatcher(system, environment, directory / "dispatcher.log")
        stack.callback(dispatcher.close)
        pids = [*setting.pids, *(worker.pid for worker in workers), dispatcher.pid]
        try:
            dispatcher.order("drain", WARM_UP)
            measured = dispatcher.order("latency", latencies)
            before = cpu_seconds(pids)
            drained = dispatcher.order("drain", jobs)
            cpu = cpu_seconds(pids) - before
        except (EOFError, ProcessLookupError) as error:
            raise TrialFailed(f"{system.name}: {error}\n{_logs(directory)}") from error
        return Trial(
            jobs_per_second=jobs / drained["ended"],
            handing_in=drained["handed_in"],
            cpu=1000 * cpu / jobs,
            latencies=measured,
        )


def _logs(directory: Path) -> str:
    return "\n".join(file.read_text(errors="replace") for file in sorted(directory.glob("*.log")))


class Dispatcher:
    """The program that hands in a system's jobs."""

    def __init__(self, system: System, environment: dict[str, str], log: Path) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [system.python, "-m", "benchmarks.peers.dispatcher", system.peer],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, what: str, number: int) -> Any:
        """Have something done, and wait for it. Raises EOFError if the program ended instead."""
        orders, answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        orders.write(f"{what} {number}\n")
        orders.flush()
        if not (answer := answers.readline()):
            raise EOFError(f"whoever was to {what} {number} jobs ended")
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
