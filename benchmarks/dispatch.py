"""Jobs a second over real HTTP, beside the requests a second of a handler that does nothing.

python -m benchmarks.dispatch [--quick]

5,000 jobs are drained by workers that claim, report 1 KB of log, and repeat, as one program simulates them; each is on
disk before it is acknowledged. E is what an empty Tornado handler answers to the same program on as many connections,
right before and right after.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
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


async def measure(quick: bool) -> list[Figure]:
    jobs, rounds = (QUICK_JOBS, QUICK_ROUNDS) if quick else (JOBS, ROUNDS)
    rates: dict[Way, list[tuple[float, float, float]]] = defaultdict(list)  # jobs/s, E, CPU ms a job
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
                server = servers[way.store]
                await start_run(server, jobs)
                cpu = server.cpu_seconds
                plan = Plan(
                    port=server.port,
                    token=TOKEN,
                    do="drain",
                    workers=way.workers,
                    slots=way.slots,
                    together=way.together,
                )
                done = await load(plan)
                cpu = server.cpu_seconds - cpu
                if done.jobs != jobs:
                    raise RuntimeError(f"{done.jobs} of {jobs} jobs were drained")
                after = await empty_rate(nothing)
                rates[way].append((jobs / done.seconds, (before + after) / 2, 1000 * cpu / jobs))
                before = after
    return [figure(way, measured) for way, measured in rates.items()]


async def empty_rate(server: Server) -> float:
    """E: requests a second."""
    done = await load(Plan(port=server.port, token=TOKEN, do="empty", workers=16, seconds=EMPTY_SECONDS))
    return done.requests / done.seconds


def figure(way: Way, measured: list[tuple[float, float, float]]) -> Figure:
    """The median of the ratios."""
    rate, empty, cpu = (statistics.median(column) for column in zip(*measured, strict=True))
    return Figure(
        what=way.title,
        value=statistics.median(rate / empty for rate, empty, _ in measured),
        unit="E",
        at_least=way.at_least,
        aim=way.aim,
        note=f"{rate:.0f} jobs/s, E {empty:.0f}/s, {cpu:.2f} ms CPU of the API a job",
    )


if __name__ == "__main__":
    main(measure)
