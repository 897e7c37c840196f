"""Whether a long queue makes anything slower or larger: jobs a second, and memory of the API.

python -m benchmarks.growth [--quick]

A long queue and a short one are drained in turns by the same workers, each in an API process of its own on SQLite: so
many jobs of each that the long one stays long, and now the one first, now the other. What a claim reads is asserted in
tests, for both stores.
"""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack

from benchmarks.figures import Figure, main
from benchmarks.load import Connection, Plan, ask_json, request
from benchmarks.servers import TOKEN, Server, api, load, start_run

LONG, SHORT = 100_000, 1_000
QUICK_LONG = 20_000

#: Jobs taken in one turn; less than the short queue has.
TAKEN, ROUNDS, QUICK_ROUNDS = 800, 8, 3

#: Students of a run: as many as fit into one body, and then some more runs.
RUN = 20_000

WORKERS = 100


async def measure(quick: bool) -> list[Figure]:
    long, rounds = (QUICK_LONG, QUICK_ROUNDS) if quick else (LONG, ROUNDS)
    async with AsyncExitStack() as stack:
        servers = {length: await stack.enter_async_context(api()) for length in (SHORT, long)}
        idle = servers[long].rss
        for _ in range(long // RUN):
            await start_run(servers[long], min(long, RUN))
        rates: dict[int, list[float]] = {SHORT: [], long: []}
        for turn in range(rounds + 1):
            in_turns = list(servers.items())[:: 1 if turn % 2 else -1]  # whoever comes first tends to be faster
            for length, server in in_turns:
                await start_run(server, SHORT if length == SHORT else TAKEN)
                plan = Plan(port=server.port, token=TOKEN, do="drain", workers=16, jobs=TAKEN)
                done = await load(plan)
                if turn:  # the first one warms up
                    rates[length].append(done.jobs / done.seconds)
            await empty_queue(servers[SHORT])
        polls = [await poll(servers[long]) for _ in range(WORKERS)]
        crowded = servers[long].rss
        for connection in polls:
            connection.close()
    ratios = [one / other for one, other in zip(rates[long], rates[SHORT], strict=True)]
    return [
        Figure(
            what=f"jobs/s with {long:,} queued, against {SHORT:,}",
            value=statistics.median(ratios),
            at_least=0.9,
            note=f"{statistics.median(rates[long]):.0f} and {statistics.median(rates[SHORT]):.0f} jobs/s",
        ),
        Figure(
            what=f"memory of the API with {long:,} queued and {WORKERS} workers, against idle",
            value=crowded / idle,
            at_most=1.3,
            note=f"{crowded / 2**20:.0f} and {idle / 2**20:.0f} MiB",
        ),
    ]


async def empty_queue(server: Server) -> None:
    """Take what is left."""
    await load(Plan(port=server.port, token=TOKEN, do="drain", workers=4, slots=4))


async def poll(server: Server) -> Connection:
    """A worker that is connected, and holds a job."""
    connection = await Connection.open(server.port)
    registered = await ask_json(connection, "POST", "/api/v1/worker_register", {"hostname": "idle"}, token=TOKEN)
    await connection.ask(request("GET", "/api/v1/grading_job?slots=1", token=TOKEN, worker=registered["worker_id"]))
    return connection


if __name__ == "__main__":
    main(measure)
