"""The load program: a process of its own that asks one server as fast as that answers, as cheaply as Python can.

python -m benchmarks.load PLAN      a JSON object, see `Plan`; prints one JSON object, {"seconds", "requests", "jobs"}

Whatever is compared is driven by this one program: the same connections, the same parsing of answers. It speaks just as
much HTTP as the servers here do, since what it costs itself is charged to the machine that they share.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

_LENGTH = b"Content-Length: "

#: What a job of a roster printed.
LOG = "0123456789abcdef" * 64

#: A body of about 1.2 KB, as a result is.
BODY = json.dumps({"success": True, "info": [{"exit_code": 0, "stdout": LOG, "stderr": ""}], "pad": "x" * 60}).encode()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do."""

    port: int
    token: str = ""
    do: str  # "empty": BODY to any path for `seconds`; "drain": until the queue is empty, or `jobs` are done
    workers: int  # each with a connection of its own
    slots: int = 1
    together: bool = True  # results and the next claim in one request; else in one each
    seconds: float = 0.0
    jobs: int = 0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What was done, and in how many seconds."""

    seconds: float
    requests: int
    jobs: int = 0


class Connection(asyncio.Protocol):
    """One connection that is kept open; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.requests = 0

    @classmethod
    async def open(cls, port: int) -> Connection:
        """A connection to a port of this machine."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return status and body of its answer. Raises ConnectionError."""
        if self._transport is None:
            raise ConnectionError("it is closed")
        self.requests += 1
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        begin = received.find(_LENGTH, 0, end)
        length = int(received[begin + len(_LENGTH) : received.index(b"\r", begin)]) if begin >= 0 else 0
        if len(received) >= end + 4 + length and self._answer is not None:
            self._received = b""
            answer, self._answer = self._answer, None
            if not answer.done():  # whoever asked may have been told to stop
                answer.set_result((int(received[9:12]), received[end + 4 :]))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed without an answer"))


def request(
    method: str, path: str, *, token: str = "", worker: str = "", body: bytes = b"", headers: Sequence[str] = ()
) -> bytes:
    """A request as its bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"Worker-Id: {worker}"] if worker else []
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def ask_json(connection: Connection, method: str, path: str, body: Any = None, **named: str) -> Any:
    """The `data` of a call that must succeed."""
    sent = b"" if body is None else json.dumps(body).encode()
    status, answer = await connection.ask(request(method, path, body=sent, **named))
    if status >= 300:
        raise RuntimeError(f"{method} {path}: {status} {answer[:300]!r}")
    return json.loads(answer)["data"]


def result_of(job: Any) -> dict[str, Any]:
    """A result as our graders report it."""
    return {
        "success": True,
        "attempt": job["attempt"],
        "info": [
            {
                "exit_code": 0,
                "reason": None,
                "started_at": "2026-01-31T09:30:00.000Z",
                "finished_at": "2026-01-31T09:30:01.000Z",
                "stdout": LOG,
                "stderr": "",
                "truncated": {"stdout": False, "stderr": False},
                "runtime": "docker",
            }
        ],
    }


async def empty(connection: Connection, plan: Plan) -> int:
    """The same request for a while."""
    posted = request("POST", "/", token=plan.token, worker="0" * 24, body=BODY)
    until = time.perf_counter() + plan.seconds
    while time.perf_counter() < until:
        await connection.ask(posted)
    return 0


async def drain(connection: Connection, plan: Plan) -> int:
    """A worker: claim and report until the queue is empty, or its share of the jobs is done."""
    registration = {"hostname": "benchmark", "slots": plan.slots}
    path = "/api/v1/worker_register"
    worker = (await ask_json(connection, "POST", path, registration, token=plan.token))["worker_id"]
    sender = {"token": plan.token, "worker": worker}
    report = _report_together if plan.together else _report_singly
    share = plan.jobs / plan.workers if plan.jobs else math.inf
    drained = 0
    claim = request("GET", f"/api/v1/grading_job?slots={plan.slots}", **sender)
    while drained < share:
        status, answer = await connection.ask(claim)
        if status == 498:
            break
        jobs = json.loads(answer)["data"]["jobs"]
        while jobs and drained < share:
            drained += len(jobs)
            jobs = await (report if drained < share else _report_singly)(connection, plan, jobs, sender)
    return drained


async def _report_singly(connection: Connection, plan: Plan, jobs: list[Any], sender: dict[str, str]) -> list[Any]:
    """A request for each result, and none of them brings new jobs."""
    for job in jobs:
        await ask_json(connection, "POST", f"/api/v1/grading_job/{job['job_id']}", result_of(job), **sender)
    return []


async def _report_together(connection: Connection, plan: Plan, jobs: list[Any], sender: dict[str, str]) -> list[Any]:
    """One request for all results, which also brings the next jobs."""
    if len(jobs) == 1:
        path = f"/api/v1/grading_job/{jobs[0]['job_id']}?slots={plan.slots}"
        answer = await ask_json(connection, "POST", path, result_of(jobs[0]), **sender)
    else:
        results = [{"job_id": job["job_id"], **result_of(job)} for job in jobs]
        path = f"/api/v1/grading_job?slots={plan.slots}"
        answer = await ask_json(connection, "POST", path, {"results": results}, **sender)
        if not all("state" in result for result in answer["results"]):
            raise RuntimeError(f"refused: {answer['results']}")
    return list(answer["jobs"])


WAYS: dict[str, Callable[[Connection, Plan], Awaitable[int]]] = {"empty": empty, "drain": drain}


async def run(plan: Plan) -> Load:
    """Do it with all connections at once."""
    connections = [await Connection.open(plan.port) for _ in range(plan.workers)]
    begun = time.perf_counter()
    jobs = sum(await asyncio.gather(*(WAYS[plan.do](connection, plan) for connection in connections)))
    seconds = time.perf_counter() - begun
    for connection in connections:
        connection.close()
    return Load(seconds=seconds, requests=sum(connection.requests for connection in connections), jobs=jobs)


def main(arguments: Sequence[str]) -> None:
    plan = Plan(**json.loads(arguments[0]))
    print(json.dumps(asdict(asyncio.run(run(plan)))))


if __name__ == "__main__":
    main(sys.argv[1:])
