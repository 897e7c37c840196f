"""What a job costs, by where: CPU time, bytes on the wire, bytes on the disk. python -m benchmarks.cost [--quick]

CPU time is that of the API and of mongod alone, not of those who ask. docs/scaling.md makes fleets of these figures.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, main
from benchmarks.load import Connection, Plan, ask_json, request, result_of
from benchmarks.servers import TOKEN, load, start_run
from benchmarks.subjects import STORES, Subject, on_sqlite
from benchmarks.wire import CountedConnection

JOBS, QUICK_JOBS = 2_000, 300

#: Requests whose bytes are counted one by one.
COUNTED = 20

#: Workers at a time.
AT_ONCE = 16


async def measure(quick: bool) -> list[Figure]:
    """All of it, on both stores."""
    jobs = QUICK_JOBS if quick else JOBS
    figures: list[Figure] = []
    async with on_sqlite() as subject:
        figures += await _on_the_wire(subject)
    for on_store in STORES:
        async with on_store() as subject:
            figures += [*await _of_jobs(subject, jobs), *await _of_requests(subject, jobs)]
    return figures


async def _on_the_wire(subject: Subject) -> list[Figure]:
    """Bytes between a worker and the API, medians: neither depends on the store."""
    await start_run(subject.server, COUNTED)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(CountedConnection, "127.0.0.1", subject.server.port)
    path = "/api/v1/worker_register"
    worker = (await ask_json(connection, "POST", path, {"hostname": "benchmark"}, token=TOKEN))["worker_id"]
    for _ in range(COUNTED):
        _, answer = await connection.ask(request("GET", "/api/v1/grading_job", token=TOKEN, worker=worker))
        job = json.loads(answer)["data"]
        connection.note("claim")
        running = {"running": [{"job_id": job["job_id"], "attempt": job["attempt"]}]}
        await ask_json(connection, "POST", "/api/v1/heartbeat", running, token=TOKEN, worker=worker)
        connection.note("heartbeat")
        path, result = f"/api/v1/grading_job/{job['job_id']}", result_of(job)
        await ask_json(connection, "POST", path, result, token=TOKEN, worker=worker)
        connection.note("report with 1 KB of log")
    connection.close()
    return [
        Figure(
            what=f"on the wire, {what}", value=sent + received, unit="bytes", note=f"{sent} to the API, {received} back"
        )
        for what, (sent, received) in connection.noted().items()
    ]


async def _of_jobs(subject: Subject, jobs: int) -> list[Figure]:
    """Two runs: drained by workers of one slot, and by workers that take and report several jobs at once."""
    stored, written, exchanged = subject.stored(), _written(subject), subject.exchanged()
    figures = await _of_run(subject, jobs, slots=1)
    written, exchanged = _written(subject) - written, subject.exchanged() - exchanged
    growth = {what: size - stored[what] for what, size in subject.stored().items()}
    figures += [
        Figure(
            what=f"{subject.name}, kept of a job",
            value=sum(growth.values()) / jobs,
            unit="bytes",
            note=", ".join(f"{what} {size / jobs:.0f}" for what, size in growth.items()),
        ),
        Figure(what=f"{subject.name}, written to the disk for a job", value=written / jobs / 1024, unit="KiB"),
    ]
    if exchanged:
        what = f"{subject.name}, between API and store for a job"
        figures.append(Figure(what=what, value=exchanged / jobs / 1024, unit="KiB"))
    return [*figures, *(await _of_run(subject, jobs, slots=4))[-len(subject.pids) :]]


async def _of_run(subject: Subject, jobs: int, *, slots: int) -> list[Figure]:
    """The CPU time of handing it in, and of draining it with AT_ONCE slots."""
    plan = Plan(
        port=subject.server.port, token=TOKEN, do="drain", workers=AT_ONCE // slots, slots=slots, together=slots > 1
    )
    before = subject.cpu()
    await start_run(subject.server, jobs)
    handed_in = subject.cpu()
    done = await load(plan)
    if done.jobs != jobs:
        raise RuntimeError(f"{done.jobs} of {jobs} jobs were drained")
    how = f"{slots} at a time" if slots > 1 else "by itself"
    return [
        *_cpu_figures(f"{subject.name}, a job handed in", before, handed_in, jobs),
        *_cpu_figures(f"{subject.name}, a job claimed and reported {how}", handed_in, subject.cpu(), jobs),
    ]


async def _of_requests(subject: Subject, number: int) -> list[Figure]:
    """What a worker sends while a job runs, as fast as it is answered."""
    await start_run(subject.server, AT_ONCE)
    crowd = [await _Busy.at_work(subject.server.port) for _ in range(AT_ONCE)]
    figures = []
    for what in ("heartbeat", "question whether a job's log is followed"):
        before = subject.cpu()
        await asyncio.gather(*(busy.send(what, number // AT_ONCE) for busy in crowd))
        figures += _cpu_figures(f"{subject.name}, a {what}", before, subject.cpu(), number)
    for busy in crowd:
        busy.connection.close()
    return figures


@dataclass(frozen=True, kw_only=True)
class _Busy:
    """A worker that runs a job."""

    connection: Connection
    requests: Mapping[str, bytes]

    @classmethod
    async def at_work(cls, port: int) -> _Busy:
        connection = await Connection.open(port)
        path = "/api/v1/worker_register"
        worker = (await ask_json(connection, "POST", path, {"hostname": "benchmark"}, token=TOKEN))["worker_id"]
        job = await ask_json(connection, "GET", "/api/v1/grading_job", token=TOKEN, worker=worker)
        running = json.dumps({"running": [{"job_id": job["job_id"], "attempt": job["attempt"]}]}).encode()
        attempt = json.dumps({"attempt": job["attempt"]}).encode()
        output = f"/api/v1/grading_job/{job['job_id']}/output"
        requests = {
            "heartbeat": request("POST", "/api/v1/heartbeat", token=TOKEN, worker=worker, body=running),
            "question whether a job's log is followed": request(
                "POST", output, token=TOKEN, worker=worker, body=attempt
            ),
        }
        return cls(connection=connection, requests=requests)

    async def send(self, what: str, times: int) -> None:
        for _ in range(times):
            status, answer = await self.connection.ask(self.requests[what])
            if status != 200:
                raise RuntimeError(f"{status} {answer[:300]!r}")


def _cpu_figures(what: str, before: dict[str, float], after: dict[str, float], number: int) -> list[Figure]:
    return [
        Figure(what=f"{what}, CPU of {process}", value=1000 * (after[process] - used) / number, unit="ms")
        for process, used in before.items()
    ]


def _written(subject: Subject) -> int:
    """Bytes that its processes have sent to the disk so far."""
    return sum(_io(pid)["write_bytes"] for pid in subject.pids.values())


def _io(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


if __name__ == "__main__":
    main(measure)
