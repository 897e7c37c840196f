"""Callers of the course protocol, as its description has them: plain requests, plain frames."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import websockets
from websockets.asyncio.client import ClientConnection

from tests.api.serving import DEADLINE, TOKEN, Api, Json

ADMIN, QUERY, OTHER = "admin-token-of-cs241", "query-token-of-cs241", "admin-token-of-cs225"

ONLY_STUDENTS: Json = {
    "student_pipeline": [{"image": "alpine:3.5"}],
    "env": {"env1": "global1", "env2": "global2"},
}


@dataclass(kw_only=True)
class Caller:
    """Sends requests with one token."""

    http: httpx.AsyncClient
    token: str | None

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """One request under `/api/v1`."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.request(method, f"/api/v1/{path}", content=content, headers=headers)

    async def data(self, method: str, path: str, body: Any = None) -> Any:
        """The data of a request that must succeed with 200."""
        answer = await self.call(method, path, body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "success"
        return answer.json()["data"]


@dataclass(kw_only=True)
class World:
    """Two courses and a cluster."""

    api: Api
    admin: Caller
    query: Caller
    other: Caller  # another course's
    grader: Caller  # has the cluster token
    nobody: Caller

    async def grade(self, config: Json | None = None, students: int = 1, **envs: Json) -> str:
        """The id of a run that was started."""
        await self.admin.data("POST", "grading_config/cs241/mp1", config or ONLY_STUDENTS)
        request = {"students_env": [{"netid": f"s{number}"} for number in range(students)]} | envs
        return str((await self.admin.data("POST", "grading_run/cs241/mp1", request))["grading_run_id"])

    async def status(self, run_id: str) -> Json:
        """The run as courses see it."""
        return dict(await self.admin.data("GET", f"grading_run_status/cs241/{run_id}"))

    async def register(self, name: str) -> None:
        """A worker that chose its id."""
        await self.grader.data("POST", f"worker/{name}", {"hostname": "eniac"})

    async def poll(self, name: str) -> Any:
        """A job, or None when there is none."""
        answer = await self.grader.call("GET", f"grading_job/{name}")
        if answer.status_code == 498:
            return None
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def report(self, name: str, job_id: str, *, success: bool = True, **fields: Any) -> httpx.Response:
        """What came of a job, as released graders say it."""
        return await self.grader.call("POST", f"grading_job/{name}", report(job_id, success=success, **fields))

    @asynccontextmanager
    async def socket(self, name: str, *, token: str = TOKEN) -> AsyncIterator[ClientConnection]:
        """A WebSocket of a worker that has not registered."""
        url = f"ws://127.0.0.1:{self.api.port}/api/v1/worker_ws/{name}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with websockets.connect(url, additional_headers=headers, open_timeout=DEADLINE) as connection:
            yield connection

    @asynccontextmanager
    async def connected(self, name: str) -> AsyncIterator[ClientConnection]:
        """A WebSocket of a worker that has registered."""
        async with self.socket(name) as connection:
            await say(connection, "register", {"hostname": "eniac"})
            assert await hear(connection) == {"success": True}
            yield connection


def report(job_id: str, *, success: bool = True, **fields: Any) -> Json:
    """The body of a result."""
    return {
        "grading_job_id": job_id,
        "success": success,
        "results": [{"success": success, "killed": False, "data": {"ExitCode": 0 if success else 1}}],
        "logs": {"stdout": "out", "stderr": "err"},
    } | fields


async def say(connection: ClientConnection, kind: str, args: Json) -> None:
    """Send one message."""
    await connection.send(json.dumps({"type": kind, "args": args}))


async def hear(connection: ClientConnection) -> Any:
    """The next message."""
    async with _deadline():
        return json.loads(await connection.recv())


async def closed_with(connection: ClientConnection) -> int | None:
    """The close code of a connection that the server ends."""
    async with _deadline():
        await connection.wait_closed()
    return connection.close_code


@asynccontextmanager
async def _deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(DEADLINE):
        yield


@asynccontextmanager
async def world(api: Api) -> AsyncIterator[World]:
    """Two courses with their tokens; `cs225` shares one of them with nobody."""
    await api.data("PUT", "courses/cs241", {"tokens": [ADMIN], "query_tokens": [QUERY]})
    await api.data("PUT", "courses/cs225", {"tokens": [OTHER]})
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", timeout=DEADLINE) as http:
        callers = {
            name: Caller(http=http, token=token)
            for name, token in (
                ("admin", ADMIN),
                ("query", QUERY),
                ("other", OTHER),
                ("grader", TOKEN),
                ("nobody", None),
            )
        }
        yield World(api=api, **callers)
