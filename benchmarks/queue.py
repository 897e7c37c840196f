"""What it costs to know and to take a job's place among 100,000.

python -m benchmarks.queue [--quick]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from benchmarks.figures import Figure, main
from broadway_api.domain import Job, JobType, Run, RunConfig, RunState, Stage, Worker
from broadway_api.ids import new_id
from broadway_api.store import open_store
from broadway_api.store.port import Store
from tests.services import mongo_standalone

RUNS, STUDENTS = 20, 5_000
COURSES = 10
ROUNDS, QUICK_ROUNDS = 15, 5
FOLLOWED = 500
NOW = datetime.now(UTC).replace(microsecond=0)
CONFIG = RunConfig(student_pipeline=(Stage(image="grade"),))

#: Milliseconds in which a position is told, wherever it is.
PROMPT = 20.0


async def measure(quick: bool) -> list[Figure]:
    figures = []
    rounds = QUICK_ROUNDS if quick else ROUNDS
    async with stores() as opened:
        for kind, store in opened.items():
            ids = await queue_all(store)
            everywhere = await store.queue_positions(ids[:: len(ids) // FOLLOWED])
            by_place = sorted(everywhere, key=everywhere.__getitem__)
            for place, at in (("first", 0), ("middle", len(by_place) // 2), ("last", -1)):
                what = f"position of the {place} of {len(ids):,}, {kind}"
                ask = partial(store.queue_positions, [by_place[at]])
                figures.append(await timed(what, ask, rounds, at_most=PROMPT))
            all_places = partial(store.queue_positions, by_place)
            figures.append(await timed(f"positions of {FOLLOWED} at once, {kind}", all_places, rounds))
            figures.append(await timed(f"what is queued by course, {kind}", store.queue_by_course, rounds))
            figures.append(await timed(f"a claim, {kind}", await claims(store), rounds))
    return figures


@asynccontextmanager
async def stores() -> AsyncIterator[dict[str, Store]]:
    """Empty stores, by their kind."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="broadway-bench-"))
        mongod = stack.enter_context(mongo_standalone())
        urls = {"SQLite": f"sqlite:///{directory}/queue.db", "MongoDB": f"{mongod}bench"}
        yield {kind: await stack.enter_async_context(open_store(url)) for kind, url in urls.items()}


async def queue_all(store: Store) -> list[str]:
    """Start the runs of all courses; return the ids of their jobs."""
    ids = []
    for number in range(RUNS):
        run = Run(id=new_id(), course=f"course-{number % COURSES}", config=CONFIG, created_at=NOW)
        jobs = [
            Job(
                id=new_id(),
                run_id=run.id,
                type=JobType.STUDENT,
                seq=seq,
                student={"NET_ID": f"s{seq}"},
                attempt_limit=3,
            )
            for seq in range(1, STUDENTS + 1)
        ]
        await store.create_run(run, jobs)
        await store.start_run(run.id, RunState.STUDENTS, NOW)
        await store.open_phase(run.id, JobType.STUDENT, NOW)
        ids += [job.id for job in jobs]
    return ids


async def claims(store: Store) -> Callable[[], Awaitable[Any]]:
    """Takes one job more, as a worker that keeps them all."""
    worker = Worker(id=new_id(), hostname="bench", registered_at=NOW, last_seen=NOW)
    await store.register_worker(worker)
    held: list[str] = []

    async def claim() -> None:
        held.extend(job.id for job in await store.claim_jobs(worker.id, 1, NOW, timedelta(minutes=1), holding=held))

    return claim


async def timed(what: str, work: Callable[[], Awaitable[Any]], rounds: int, *, at_most: float | None = None) -> Figure:
    """The median of how long it takes."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        await work()
        times.append((time.perf_counter() - begin) * 1000)
    note = f"{min(times):.1f} to {max(times):.1f} ms"
    return Figure(what=what, value=statistics.median(times), unit="ms", at_most=at_most, note=note)


if __name__ == "__main__":
    main(measure)
