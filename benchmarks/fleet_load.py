"""Idle workers by the thousand, in one process: they hold polls and send heartbeats, as our graders do.

python -m benchmarks.fleet_load PLAN      a JSON object, see `Plan`

It prints a line when it begins to count, and one at the end: a JSON object, see `Seen`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.load import Connection, ask_json, request

#: Workers that register at a time.
AT_ONCE = 32

#: The share by which the interval between heartbeats is shortened at random, as in our graders.
JITTER = 0.2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to simulate."""

    port: int
    token: str
    workers: int
    heartbeat: float  # seconds between two heartbeats of a worker
    wait: int  # seconds that a poll asks to be held
    seconds: float  # for which they are watched, once each of them has asked for a job


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the workers saw."""

    polls: int  # asked while they were watched
    latencies: list[float]  # of heartbeats sent meanwhile, in seconds
    faults: dict[str, int]  # answers that were none, or not what they should be


class Workers:
    """All of them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._latencies: list[float] = []
        self._watched = False
        self._polls = 0
        self._faults = Counter[str]()
        self._connections: list[Connection] = []

    async def run(self) -> Seen:
        """Register, be idle, leave without a word."""
        turns = asyncio.Semaphore(AT_ONCE)
        ids = await asyncio.gather(*(self._register(turns) for _ in range(self._plan.workers)))
        tasks = [asyncio.create_task(way(worker)) for worker in ids for way in (self._poll, self._beat)]
        await asyncio.sleep(self._plan.wait + 1)  # each has asked once, the first of them again
        self._watched = True
        print("watched", flush=True)
        await asyncio.sleep(self._plan.seconds)
        for connection in self._connections:  # first, or an answer might come to a task that is no more
            connection.close()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        self._faults.update(repr(end) for end in ended if not isinstance(end, asyncio.CancelledError))
        return Seen(polls=self._polls, latencies=self._latencies, faults=dict(self._faults))

    async def _register(self, turns: asyncio.Semaphore) -> str:
        async with turns:
            connection = await Connection.open(self._plan.port)
            path, body = "/api/v1/worker_register", {"hostname": "benchmark", "slots": 4}
            answer = await ask_json(connection, "POST", path, body, token=self._plan.token)
            connection.close()
            return str(answer["worker_id"])

    async def _poll(self, worker: str) -> None:
        poll = request("GET", "/api/v1/grading_job?slots=4", token=self._plan.token, worker=worker)
        poll = poll.replace(b"\r\n", f"\r\nPrefer: wait={self._plan.wait}\r\n".encode(), 1)
        await asyncio.sleep(random.uniform(0, self._plan.wait))  # noqa: S311
        connection = await self._connect()
        while True:
            self._polls += self._watched
            status, _ = await connection.ask(poll)
            self._check("a poll", status, 498)

    async def _beat(self, worker: str) -> None:
        body = json.dumps({"running": []}).encode()
        heartbeat = request("POST", "/api/v1/heartbeat", token=self._plan.token, worker=worker, body=body)
        await asyncio.sleep(random.uniform(0, self._plan.heartbeat))  # noqa: S311
        connection = await self._connect()
        while True:
            asked, watched = time.perf_counter(), self._watched
            status, _ = await connection.ask(heartbeat)
            if watched:
                self._latencies.append(time.perf_counter() - asked)
            self._check("a heartbeat", status, 200)
            await asyncio.sleep(self._plan.heartbeat * (1 - JITTER * random.random()))  # noqa: S311

    def _check(self, what: str, status: int, expected: int) -> None:
        if status != expected:
            self._faults[f"{what} was answered with {status}"] += 1

    async def _connect(self) -> Connection:
        connection = await Connection.open(self._plan.port)
        self._connections.append(connection)
        return connection


def main(arguments: Sequence[str]) -> None:
    plan = Plan(**json.loads(arguments[0]))
    print(json.dumps(asdict(asyncio.run(Workers(plan).run()))))


if __name__ == "__main__":
    main(sys.argv[1:])
