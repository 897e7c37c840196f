"""A webhook is told how runs ended: signed, again until it hears, never led astray, and at nobody's cost."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.netutil import bind_sockets

from broadway_api import outbox
from broadway_api.server import WebhookSettings
from tests.api.serving import Api, eventually, serving

KEY = b"0123456789abcdef"


@dataclass
class Receiver:
    """Somebody's web server, which answers with these statuses, and then with the last of them for ever."""

    statuses: Sequence[int]
    port: int = 0
    heard: list[HTTPServerRequest] = field(default_factory=list)

    def __call__(self, request: HTTPServerRequest) -> None:
        self.heard.append(request)
        status = self.statuses[min(len(self.heard), len(self.statuses)) - 1]
        assert request.connection is not None
        headers = {"Content-Length": "0", "Location": f"http://127.0.0.1:{self.port}/elsewhere"}
        request.connection.write_headers(ResponseStartLine("HTTP/1.1", status, ""), HTTPHeaders(headers))
        request.connection.finish()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.heard]


@asynccontextmanager
async def told(url: str, *statuses: int) -> AsyncIterator[tuple[Api, Receiver]]:
    """An API whose webhook answers like that."""
    receiver = Receiver(statuses)
    server = HTTPServer(receiver)
    sockets = bind_sockets(0, "127.0.0.1")
    receiver.port = sockets[0].getsockname()[1]
    server.add_sockets(sockets)
    try:
        async with serving(url, webhook=WebhookSettings(url=f"http://127.0.0.1:{receiver.port}/hook", key=KEY)) as api:
            yield api, receiver
    finally:
        server.stop()
        await server.close_all_connections()


async def end_a_run(api: Api, **result: Any) -> str:
    worker = await api.register()
    run_id = await api.start()
    await api.report(worker, await api.claim(worker), **result)
    return run_id


async def has_heard(receiver: Receiver, times: int) -> None:
    async def enough() -> bool:
        return len(receiver.heard) >= times

    await eventually(enough)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow one another at once, and do not come to an end."""
    monkeypatch.setattr(outbox, "PAUSES", (timedelta(milliseconds=50),) * 10_000)
    monkeypatch.setattr(outbox, "LOOK_EVERY", 0.05)


async def test_a_run_that_ended_is_told_of_once_and_signed(any_store_url: str) -> None:
    async with told(any_store_url, 200) as (api, receiver):
        run_id = await end_a_run(api, success=False, reason="timeout")
        await has_heard(receiver, 1)
        (request,) = receiver.heard
        (body,) = receiver.bodies()
        run = await api.run(run_id)
        assert {name: body[name] for name in ("grading_run_id", "course", "state", "success", "finished_at")} == {
            name: run[name] for name in ("grading_run_id", "course", "state", "success", "finished_at")
        }
        assert body["reasons"] == {"timeout": 1}
        assert body["event"] == "run.ended"
        assert request.headers["Broadway-Delivery"] == body["delivery_id"]
        time, _, signed = request.headers["Broadway-Signature"].removeprefix("t=").partition(",v1=")
        assert signed == hmac.new(KEY, f"{time}.".encode() + request.body, hashlib.sha256).hexdigest()

        await api.data("POST", f"grading_run/{run_id}/retry")
        worker = await api.register()
        await api.report(worker, await api.claim(worker))
        await has_heard(receiver, 2)
        again = receiver.bodies()[1]
        assert (again["success"], again["grading_run_id"]) == (True, run_id)
        assert again["delivery_id"] != body["delivery_id"]  # it ended once more


async def test_the_run_says_whether_the_webhook_has_heard_and_if_not_why(any_store_url: str) -> None:
    async with told(any_store_url, 503, 204) as (api, _):

        async def deliveries(run_id: str) -> list[tuple[str, int, str | None]]:
            found = (await api.data("GET", f"grading_run/{run_id}/deliveries"))["deliveries"]
            return [(one["state"], one["attempts"], one["fault"]) for one in found]

        async def are(run_id: str, *wanted: tuple[str, int, str | None]) -> None:
            async def so() -> bool:
                return await deliveries(run_id) == list(wanted)

            await eventually(so)

        first = await end_a_run(api)
        await are(first, ("pending", 1, "status 503"))
        await are(await end_a_run(api), ("heard", 1, None))
        assert await deliveries(await api.start()) == []


@pytest.mark.usefixtures("impatient")
async def test_it_is_told_until_it_hears_with_one_delivery_id(sqlite_url: str) -> None:
    async with told(sqlite_url, 500, 302, 404, 204) as (api, receiver):
        await end_a_run(api)
        await has_heard(receiver, 4)
        await end_a_run(api)
        await has_heard(receiver, 5)
        bodies = receiver.bodies()
        assert len({body["delivery_id"] for body in bodies[:4]}) == 1
        assert bodies[4]["delivery_id"] != bodies[0]["delivery_id"]
        assert {request.path for request in receiver.heard} == {"/hook"}  # no redirect was followed


@pytest.mark.usefixtures("impatient")
async def test_what_nobody_heard_is_told_by_the_next_process(sqlite_url: str) -> None:
    async with told(sqlite_url, 503) as (api, receiver):
        run_id = await end_a_run(api)
        await has_heard(receiver, 1)
    async with told(sqlite_url, 200) as (_, receiver):
        await has_heard(receiver, 1)
        assert receiver.bodies()[0]["grading_run_id"] == run_id


async def test_a_webhook_that_never_answers_holds_up_nobody(sqlite_url: str) -> None:
    silent = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with serving(sqlite_url, webhook=WebhookSettings(url=f"http://127.0.0.1:{port}/", key=KEY)) as api:
        await end_a_run(api)
        await api.store.until_called("take_delivery")
        assert (await api.run(await end_a_run(api)))["state"] == "finished"
    silent.set()
    server.close()
    await server.wait_closed()
