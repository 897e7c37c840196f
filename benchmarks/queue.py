"""What it costs to know and to take a job's place among 100,000; for docs/performance.md.

python -m benchmarks.queue [store url]      without one: SQLite, in a temporary directory
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from broadway_api.domain import Job, JobType, Run, RunConfig, RunState, Stage, Worker
from broadway_api.ids import new_id
from broadway_api.store import open_store
from broadway_api.store.port import Store

RUNS, STUDENTS = 20, 5_000
COURSES = 10
ROUNDS = 15
NOW = datetime.now(UTC).replace(microsecond=0)
CONFIG = RunConfig(student_pipeline=(Stage(image="grade"),))


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


async def timed(what: str, work: Callable[[], Awaitable[Any]]) -> None:
    """Print how long it takes."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        await work()
        times.append((time.perf_counter() - begin) * 1000)
    print(f"| {what} | {statistics.median(times):.1f} ms | {min(times):.1f} ms | {max(times):.1f} ms |", flush=True)


async def measure(url: str) -> None:
    """Print a table."""
    async with open_store(url) as store:
        ids = await queue_all(store)
        everywhere = await store.queue_positions(ids[:: len(ids) // 500])
        by_place = sorted(everywhere, key=lambda job_id: everywhere[job_id])
        worker = Worker(id=new_id(), hostname="bench", registered_at=NOW, last_seen=NOW)
        await store.register_worker(worker)
        print(f"{await store.queue_depth()} queued jobs of {COURSES} courses")
        for place, at in (("first", 0), ("middle", len(by_place) // 2), ("last", -1)):
            job_id = by_place[at]
            what = f"position of the {place}, {everywhere[job_id]}"
            await timed(what, partial(store.queue_positions, [job_id]))
        await timed("positions of 500 at once", lambda: store.queue_positions(by_place))
        await timed("what is queued, by course", store.queue_by_course)
        held: list[str] = []

        async def claim() -> None:
            jobs = await store.claim_jobs(worker.id, 1, NOW, timedelta(minutes=1), holding=held)
            held.extend(job.id for job in jobs)

        await timed("a claim", claim)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="broadway-bench-") as directory:
        asyncio.run(measure(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{directory}/queue.db"))
