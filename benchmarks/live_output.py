"""What it costs a job of 50 MB of output that it is followed. python -m benchmarks.live_output [--quick]

One grader in the sandbox, its logs so large that 16 MiB of the output are read, masked and sent at a follower's pace;
jobs are followed and not followed by turns. The stage is an awk that prints as fast as it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.figures import Figure, main
from benchmarks.servers import PATIENCE, ROOT, TOKEN, api
from broadway_client.async_client import AsyncClient
from broadway_client.cli.processes import Process, start
from broadway_client.models import Printed

#: Lines of 16 bytes.
LINES = 3_125_000
LOG_BYTES = 16 * 1024**2
ROUNDS, QUICK_ROUNDS = 5, 2

SENT = "broadway_live_output_bytes_total "

#: Beside printing it thinks a little, for some seconds in all.
SCRIPT = """
BEGIN { for (i = 0; i < LINES; i++) { for (j = 0; j < 25; j++) x += j; printf "line of %07d\\n", i } }
""".replace("LINES", str(LINES))


async def measure(quick: bool) -> list[Figure]:
    """The ratio of the stage's times, and what the grader grew by."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    alone: list[Job] = []
    followed: list[Job] = []
    async with api() as server, AsyncClient(f"http://127.0.0.1:{server.port}", TOKEN, patience=PATIENCE) as client:
        with grader(server.port) as process:
            for _ in range(rounds):
                await graded(client, follow=False)
            before = peak(process)
            for _ in range(rounds):
                alone.append(await graded(client, follow=False))
                followed.append(await graded(client, follow=True))
            after = peak(process)
            sent = sum(
                float(line.split()[1]) for line in (await client.metrics()).splitlines() if line.startswith(SENT)
            )
    seconds = [statistics.median(job.seconds for job in jobs) for jobs in (followed, alone)]
    if any(job.told != LOG_BYTES for job in followed):
        raise RuntimeError("a follower was neither told nor told of all of the log")
    return [
        Figure(
            what="50 MB of output, followed ÷ not",
            value=seconds[0] / seconds[1],
            at_most=1.1,
            note=f"{seconds[0]:.2f} s and {seconds[1]:.2f} s; {sent / rounds / 1e3:.0f} kB of each sent while it ran",
        ),
        Figure(
            what="grader's memory at most, followed ÷ not",
            value=after / before,
            at_most=1.25,
            note=f"{after / 1e6:.0f} MB and {before / 1e6:.0f} MB",
        ),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job that was graded."""

    seconds: float  # of its stage
    told: int  # bytes of its log, those that were told as dropped counted


async def graded(client: AsyncClient, *, follow: bool) -> Job:
    """Grade one job, which is followed from before it starts or not at all."""
    stage = {"image": "none", "entry_point": ["awk", SCRIPT], "timeout": 300}
    config = {"students": [{"NET_ID": "amy"}], "student_pipeline": [stage]}
    run_id = (await client.create_run(config)).grading_run_id
    job_id = (await client.job_page(run_id)).jobs[0].job_id
    following = asyncio.create_task(_follow(client, job_id)) if follow else None
    await client.start_run(run_id)
    await client.wait_for_run(run_id)
    told = await following if following else 0
    info = (await client.job(job_id)).info[0]
    began, ended = (datetime.fromisoformat(info[name]) for name in ("started_at", "finished_at"))
    return Job(seconds=(ended - began).total_seconds(), told=told)


async def _follow(client: AsyncClient, job_id: str) -> int:
    told = 0
    async for event in client.follow_log(job_id):
        if isinstance(event.what, Printed):
            told += len(event.what.text) + event.what.dropped
    return told


@contextlib.contextmanager
def grader(port: int) -> Iterator[Process]:
    """`grader.py` with one slot, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="broadway-bench-") as name:
        directory = Path(name)
        options = {
            "api": f"http://127.0.0.1:{port}",
            "runtime": "sandbox",
            "slots": "1",
            "work-dir": str(directory / "work"),
            "max-log-bytes": str(LOG_BYTES),
            "self-test-at-start": "never",
        }
        command: list[str | Path] = [sys.executable, ROOT / "grader.py"]
        for option, value in options.items():
            command += [f"--{option}", value]
        environment = {**os.environ, "BROADWAY_TOKEN": TOKEN}
        process = start(
            command,
            log=directory / "out",
            environment=environment,
        )
        try:
            yield process
        finally:
            process.stop(PATIENCE)


def peak(process: Process) -> int:
    """Bytes of memory that it has held at most."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main(measure)
