"""A scripted API on a real port: what the grader's side of the wire is tested against."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from typing import Any

import tornado.httpserver
import tornado.netutil
import tornado.web

WORKER_ID = "697dd0a80a1b2c3d4e5f6099"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, str]
    body: Any
    port: int  # of the other end: which connection it came by


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer to give."""

    status: int = 200
    body: Any = None
    text: str | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    cut: bool = False  # close the connection instead


def success(**data: Any) -> Reply:
    return Reply(body={"status": "success", "data": data})


def fail(status: int, message: str = "no", **headers: str) -> Reply:
    return Reply(status=status, body={"status": "fail", "data": {"message": message}}, headers=headers)


EMPTY = fail(498, "the queue is empty")
CUT = Reply(cut=True)


class FakeApi:
    """Answers each kind of call from its script, and with what an idle API would say once that is used up."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.script: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self.registrations = 0
        self.port = 0
        self._server: tornado.httpserver.HTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, kind: str) -> list[Call]:
        """The calls of a kind: register, heartbeat, claim, report, output, deregister."""
        return [call for call in self.calls if _kind(call.method, call.path) == kind]

    def say(self, kind: str, *replies: Reply) -> None:
        """Answer the next calls of that kind so."""
        self.script[kind].extend(replies)

    async def answer(self, call: Call) -> Reply:
        """The next answer for such a call."""
        self.calls.append(call)
        kind = _kind(call.method, call.path)
        if self.script[kind]:
            return self.script[kind].popleft()
        if kind == "register":
            self.registrations += 1
            return success(worker_id=f"{self.registrations:024d}", heartbeat=0.1)
        if kind == "claim":
            await asyncio.sleep(0.02)
            return EMPTY
        return {
            "heartbeat": success(lost=[]),
            "report": success(job_id=call.path.rpartition("/")[2], state="succeeded"),
            "output": success(followed=[]),
            "deregister": success(handed_back=[]),
        }.get(kind, fail(404))

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        sockets = tornado.netutil.bind_sockets(self.port, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        application = tornado.web.Application([(r"/api/v1/(.*)", _Handler, {"api": self})])
        application.settings["log_function"] = lambda handler: None
        self._server = tornado.httpserver.HTTPServer(application, max_body_size=2**30)
        self._server.add_sockets(sockets)

    async def stop(self) -> None:
        """Be away: refuse connections, and cut those there are."""
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
            self._server = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[FakeApi]:
        api = cls()
        api.start()
        try:
            yield api
        finally:
            await api.stop()


class _Handler(tornado.web.RequestHandler):
    def initialize(self, api: FakeApi) -> None:
        self.api = api

    async def prepare(self) -> None:
        request = self.request
        call = Call(
            method=str(request.method),
            path=request.path.removeprefix("/api/v1/"),
            headers={name.lower(): value for name, value in request.headers.get_all()},
            query={name: self.get_query_argument(name) for name in request.query_arguments},
            body=json.loads(request.body) if request.body else None,
            port=request.connection.context.address[1],  # type: ignore[union-attr]  # Tornado's own kind has one
        )
        reply = await self.api.answer(call)
        if reply.cut:
            assert request.connection is not None
            self.detach().close()
            return
        self.set_status(reply.status)
        for name, value in reply.headers.items():
            self.set_header(name.replace("_", "-"), value)
        self.finish(reply.text if reply.text is not None else json.dumps(reply.body))

    async def get(self, path: str) -> None:
        """Answered before."""

    post = delete = get


def _kind(method: str, path: str) -> str:
    head = path.partition("/")[0]
    if path.endswith("/output"):  # what a job prints while it runs, which is sent where an answer asked for it
        return "output"
    return {
        ("POST", "worker_register"): "register",
        ("POST", "heartbeat"): "heartbeat",
        ("GET", "grading_job"): "claim",
        ("POST", "grading_job"): "report",
        ("DELETE", "worker"): "deregister",
    }.get((method, head), "unknown")
