"""A fleet of idle workers beside one API process: held polls and heartbeats. python -m benchmarks.fleet [--quick]

As many workers as the limit on open files allows, 10,000 at most, each with two real connections: one for polls that
are held for 20 s, one for a heartbeat every 8 to 10 s. What is beyond that is worked out: all of it grows with the
number of workers. `--quick` takes fewer of them who ask more often.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import cast

from benchmarks.figures import Figure, main
from benchmarks.fleet_load import JITTER, Plan, Seen
from benchmarks.servers import ROOT, TOKEN
from benchmarks.subjects import STORES, Subject

WORKERS, QUICK_WORKERS = 10_000, 300
SECONDS, QUICK_SECONDS = 15, 4

#: The defaults of config.py, in seconds, and by how much `--quick` shortens them.
HEARTBEAT, WAIT = 10, 20
HASTE = 10

#: Requests of an idle worker a second.
RATE = 1 / (HEARTBEAT * (1 - JITTER / 2)) + 1 / WAIT

#: Files that either side has open beside the connections of workers.
OTHER_FILES = 400

#: Of a core: what an API process has for idle workers if it is to have as much for jobs.
ROOM = 0.5


async def measure(quick: bool) -> list[Figure]:
    """Both stores."""
    figures: list[Figure] = []
    workers = QUICK_WORKERS if quick else min(WORKERS, _most_workers())  # before the servers start, and inherit it
    for on_store in STORES:
        async with on_store() as subject:
            figures += await _of_fleet(subject, workers, quick)
    return figures


async def _of_fleet(subject: Subject, workers: int, quick: bool) -> list[Figure]:
    haste = HASTE if quick else 1
    plan = Plan(
        port=subject.server.port,
        token=TOKEN,
        workers=workers,
        heartbeat=HEARTBEAT / haste,
        wait=WAIT // haste,
        seconds=QUICK_SECONDS if quick else SECONDS,
    )
    before = subject.server.rss
    command = [sys.executable, "-m", "benchmarks.fleet_load", json.dumps(asdict(plan))]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=2**26)
    output = cast(asyncio.StreamReader, process.stdout)
    await output.readline()
    used = subject.cpu()
    await asyncio.sleep(plan.seconds)
    used = {what: cpu - used[what] for what, cpu in subject.cpu().items()}
    memory = (subject.server.rss - before) / plan.workers
    answer = await output.readline()
    if await process.wait():
        raise RuntimeError("the load program broke")
    seen = Seen(**json.loads(answer))
    if seen.faults:
        raise RuntimeError(f"not as it should be: {seen.faults}")
    return _figures(subject, plan, seen, used, memory)


def _figures(subject: Subject, plan: Plan, seen: Seen, used: Mapping[str, float], memory: float) -> list[Figure]:
    requests = seen.polls + len(seen.latencies)
    latencies = [1000 * latency for latency in seen.latencies]
    carried = int(ROOM / RATE / (used["the API"] / requests))
    asked = f"{plan.workers} workers, {seen.polls} polls and {len(latencies)} heartbeats in {plan.seconds:g} s"
    return [
        *(
            Figure(
                what=f"{subject.name}, a poll or heartbeat, CPU of {what}",
                value=1000 * cpu / requests,
                unit="ms",
                note=asked,
            )
            for what, cpu in used.items()
        ),
        Figure(
            what=f"{subject.name}, heartbeats answered in, p99",
            value=statistics.quantiles(latencies, n=100)[98],
            unit="ms",
            note=f"p50 {statistics.median(latencies):.1f} ms, longest {max(latencies):.0f} ms",
        ),
        Figure(what=f"{subject.name}, memory of the API, a worker", value=memory / 1024, unit="KiB"),
        Figure(
            what=f"{subject.name}, idle workers of one API process, worked out",
            value=carried,
            unit="workers",
            note=f"in half a core; {2 * carried} open files, {carried * memory / 2**20:.0f} MiB",
        ),
    ]


def _most_workers() -> int:
    """Those for whose connections the API may open files; this process passes its own limit on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (hard - OTHER_FILES) // 2


if __name__ == "__main__":
    main(measure)
