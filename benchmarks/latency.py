"""How long anybody waits: an idle worker for a new job, a heartbeat under load, the loop while a class is submitted.

python -m benchmarks.latency [--quick]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress

from benchmarks.figures import Figure, main
from benchmarks.load import Connection, Plan, ask_json, request
from benchmarks.servers import TOKEN, Server, api, config_of, load, start_run

NEW_JOBS, QUICK_NEW_JOBS = 200, 60
DRAINED, QUICK_DRAINED = 3_000, 1_000
CLASS = 10_000
CLASSES, QUICK_CLASSES = 5, 2


async def measure(quick: bool) -> list[Figure]:
    async with api() as server:
        waits = await waits_for_new_jobs(server, QUICK_NEW_JOBS if quick else NEW_JOBS)
        beats = await heartbeats_under_load(server, QUICK_DRAINED if quick else DRAINED)
        lags, creations = await large_classes(server, QUICK_CLASSES if quick else CLASSES)
    return [
        Figure(
            what="a new job reaches an idle worker after the answer to its POST, p50",
            value=percentile(waits, 50),
            unit="ms",
            at_most=10,
        ),
        Figure(what="the same, p99", value=percentile(waits, 99), unit="ms", at_most=50, note=f"{len(waits)} jobs"),
        Figure(
            what="a heartbeat while 16 workers drain the queue, p99",
            value=percentile(beats, 99),
            unit="ms",
            at_most=100,
            note=f"p50 {percentile(beats, 50):.1f} ms, {len(beats)} heartbeats",
        ),
        Figure(
            what=f"loop lag while a run of {CLASS:,} is submitted, started and asked for 10 times a second, p99",
            value=percentile(lags, 99),
            unit="ms",
            at_most=50,
            note=f"p50 {percentile(lags, 50):.1f} ms, {len(lags)} requests",
        ),
        Figure(
            what=f"to create and start a run of {CLASS:,}",
            value=statistics.median(creations),
            unit="s",
            at_most=1.5,
            note=f"of {len(creations)}",
        ),
    ]


async def waits_for_new_jobs(server: Server, number: int) -> list[float]:
    """Milliseconds from the answer that started a run of one job to the answer that gave the job to a held poll."""
    worker, staff = [await Connection.open(server.port) for _ in range(2)]
    path = "/api/v1/worker_register"
    worker_id = (await ask_json(worker, "POST", path, {"hostname": "idle"}, token=TOKEN))["worker_id"]
    claim = request("GET", "/api/v1/grading_job?slots=1", token=TOKEN, worker=worker_id, headers=["Prefer: wait=60"])
    arrived = 0.0

    async def poll() -> None:
        nonlocal arrived
        _, answer = await worker.ask(claim)
        arrived = time.perf_counter()
        (job,) = json.loads(answer)["data"]["jobs"]
        done = {"success": True, "attempt": job["attempt"]}
        await ask_json(worker, "POST", f"/api/v1/grading_job/{job['job_id']}", done, token=TOKEN, worker=worker_id)

    waits = []
    for _ in range(number):
        run = await ask_json(staff, "POST", "/api/v1/grading_run", config_of(1), token=TOKEN)
        polling = asyncio.create_task(poll())
        await ask_json(staff, "GET", "/api/v1/workers", token=TOKEN)  # by then the poll is held
        await ask_json(staff, "POST", f"/api/v1/grading_run/{run['grading_run_id']}", token=TOKEN)
        answered = time.perf_counter()
        await polling
        waits.append(1000 * max(arrived - answered, 0.0))
    worker.close()
    staff.close()
    return waits


async def heartbeats_under_load(server: Server, jobs: int) -> list[float]:
    """Milliseconds that each of one worker's heartbeats took, one right after the other's pause of 5 ms."""
    await start_run(server, jobs)
    worker = await Connection.open(server.port)
    path = "/api/v1/worker_register"
    worker_id = (await ask_json(worker, "POST", path, {"hostname": "idle"}, token=TOKEN))["worker_id"]
    draining = asyncio.create_task(load(Plan(port=server.port, token=TOKEN, do="drain", workers=16)))
    beats = []
    beat = request("POST", "/api/v1/heartbeat", token=TOKEN, worker=worker_id, body=b'{"running": []}')
    while not draining.done():
        begun = time.perf_counter()
        await worker.ask(beat)
        beats.append(1000 * (time.perf_counter() - begun))
        await asyncio.sleep(0.005)
    await draining
    worker.close()
    return beats


async def large_classes(server: Server, number: int) -> tuple[list[float], list[float]]:
    """Milliseconds that the loop took to answer what needs nothing but the loop, and seconds to create and start."""
    lags: list[float] = []
    creations = []
    prober = asyncio.create_task(probe(server, lags))
    for _ in range(number):
        begun = time.perf_counter()
        run_id = await start_run(server, CLASS)
        creations.append(time.perf_counter() - begun)
        connection = await Connection.open(server.port)
        for _ in range(10):
            await ask_json(connection, "GET", f"/api/v1/grading_run/{run_id}", token=TOKEN)
            await asyncio.sleep(0.1)
        await ask_json(connection, "POST", f"/api/v1/grading_run/{run_id}/cancel", token=TOKEN)
        connection.close()
    prober.cancel()
    with suppress(asyncio.CancelledError):
        await prober
    return lags, creations


async def probe(server: Server, lags: list[float]) -> None:
    """For ever: ask for what the loop refuses by itself, without the store and without hanging up."""
    connection = await Connection.open(server.port)
    refused = request("DELETE", "/api/v1/heartbeat", token=TOKEN, worker="0" * 24)
    while True:
        begun = time.perf_counter()
        status, _ = await connection.ask(refused)
        if status != 405:
            raise RuntimeError(f"it answered {status}")
        lags.append(1000 * (time.perf_counter() - begun))
        await asyncio.sleep(0.002)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many per cent of them do not exceed."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


if __name__ == "__main__":
    main(measure)
