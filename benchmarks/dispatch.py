"""Jobs a second over real HTTP, beside the requests a second of a handler that does nothing.

python -m benchmarks.dispatch [--quick]

5,000 jobs are drained by workers that claim, report 1 KB of log, and repeat, as one program simulates them; each is on
disk before it is acknowledged. E is what an empty Tornado handler answers to the same program on as many connections,
right before and right after.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.figures import Figure, main
from benchmarks.load import Plan
from benchmarks.servers import TOKEN, Server, api, empty_server, load, start_run
from tests.services import mongo_standalone

JOBS, QUICK_JOBS = 5_000, 1_500
ROUNDS, QUICK_ROUNDS = 5, 1
EMPTY_SECONDS = 1.5


@dataclass(frozen=True, kw_only=True)
class Way:
    """A store, and workers of some kind."""

    store: str
    workers: int
    slots: int
    together: bool = True
    at_least: float | None = None
    aim: float | None = None

    @property
    def title(self) -> str:
        """For the table."""
        how = "" if self.together else ", results and claims apart"
        return f"dispatch, {self.store}, {self.workers} × {self.slots} slots{how}"


WAYS = (
    Way(store="SQLite", workers=16, slots=1, at_least=0.3, aim=0.5),
    Way(store="SQLite", workers=16, slots=1, together=False),
    Way(store="SQLite", workers=4, slots=4, at_least=0.5, aim=1.0),
    Way(store="MongoDB", workers=16, slots=1, at_least=0.22, aim=0.35),
    Way(store="MongoDB", workers=16, slots=1, together=False),
    Way(store="MongoDB", workers=4, slots=4, at_least=0.3, aim=0.5),
)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast something was, and what it cost the server."""

    per_second: float
    cpu: float  # milliseconds for each


async def measure(quick: bool) -> list[Figure]:
    jobs, rounds = (QUICK_JOBS, QUICK_ROUNDS) if quick else (JOBS, ROUNDS)
    rates: dict[Way, list[tuple[Rate, Rate]]] = defaultdict(list)  # of jobs, and of empty requests
    async with AsyncExitStack() as stack:
        nothing = await stack.enter_async_context(empty_server())
        mongod = stack.enter_context(mongo_standalone())
        servers = {
            "SQLite": await stack.enter_async_context(api()),
            "MongoDB": await stack.enter_async_context(api(f"{mongod}bench")),
        }
        await empty_rate(nothing)
        before = await empty_rate(nothing)
        for _ in range(rounds):
            for way in WAYS:
                drained = await drain_rate(servers[way.store], way, jobs if way.together else jobs // 5)
                after = await empty_rate(nothing)
                between = Rate(per_second=(before.per_second + after.per_second) / 2, cpu=(before.cpu + after.cpu) / 2)
                rates[way].append((drained, between))
                before = after
    return [figure(way, measured) for way, measured in rates.items()]


async def drain_rate(server: Server, way: Way, jobs: int) -> Rate:
    """A run of so many jobs, from the first claim to the last answer."""
    await start_run(server, jobs)
    cpu = server.cpu_seconds
    plan = Plan(port=server.port, token=TOKEN, do="drain", workers=way.workers, slots=way.slots, together=way.together)
    done = await load(plan)
    if done.jobs != jobs:
        raise RuntimeError(f"{done.jobs} of {jobs} jobs were drained")
    return Rate(per_second=jobs / done.seconds, cpu=1000 * (server.cpu_seconds - cpu) / jobs)


async def empty_rate(server: Server) -> Rate:
    """E: requests a second."""
    cpu = server.cpu_seconds
    done = await load(Plan(port=server.port, token=TOKEN, do="empty", workers=16, seconds=EMPTY_SECONDS))
    return Rate(per_second=done.requests / done.seconds, cpu=1000 * (server.cpu_seconds - cpu) / done.requests)


def figure(way: Way, measured: list[tuple[Rate, Rate]]) -> Figure:
    """The median of the ratios."""
    jobs, empty = zip(*measured, strict=True)
    return Figure(
        what=way.title,
        value=statistics.median(job.per_second / nothing.per_second for job, nothing in measured),
        unit="E",
        at_least=way.at_least,
        aim=way.aim,
        note=f"{_median(jobs)}, E {_median(empty)}",
    )


def _median(rates: Sequence[Rate]) -> str:
    """Both medians; of the two it is the CPU time that a machine with other work to do tells best."""
    rate, cpu = (statistics.median(getattr(rate, name) for rate in rates) for name in ("per_second", "cpu"))
    return f"{rate:.0f}/s at {cpu:.2f} ms CPU"


if __name__ == "__main__":
    main(measure)
