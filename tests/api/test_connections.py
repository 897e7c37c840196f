"""What a connection is to its client beside one request after another: upgrades, old versions, slowness, ends."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from broadway_api import server
from broadway_api.access import Access
from broadway_api.handlers.operations import HealthHandler
from broadway_api.tenants import Principal
from tests.api.raw import Connection, connect
from tests.api.serving import DEADLINE, TOKEN, Api, eventually, run_config, serving

HEAD = b"Host: a\r\nAuthorization: " + TOKEN.encode() + b"\r\n"
CONFIG = json.dumps(run_config()).encode()
CREATE = b"POST /api/v1/grading_run HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n" % len(CONFIG)


@pytest.fixture
async def connection(api: Api) -> AsyncIterator[Connection]:
    async with connect(api.port) as opened:
        yield opened


# --- upgrades --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websockets"])
async def test_an_upgrade_to_what_is_not_spoken_here_is_ignored(connection: Connection, protocol: bytes) -> None:
    """With its body, which the parser by itself would take for the other protocol."""
    await connection.send(CREATE + b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n" + CONFIG)
    answer = await connection.answer()
    assert answer.status == 200
    assert "grading_run_id" in json.loads(answer.body)["data"]
    assert await connection.closed()


async def test_a_websocket_where_there_is_none_is_a_request_like_others(connection: Connection) -> None:
    await connection.head("GET", "/healthz", Connection="Upgrade", Upgrade="websocket")
    assert (await connection.answer()).status == 200
    assert await connection.closed()


async def test_a_tunnel_is_not_possible(connection: Connection) -> None:
    await connection.send(b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n\x16\x03\x01")
    assert (await connection.answer()).status == 405
    assert await connection.closed()


# --- versions and methods --------------------------------------------------------------------------------------------


async def test_http_1_0_closes_unless_it_is_asked_not_to(connection: Connection) -> None:
    await connection.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer = await connection.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
    await connection.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (await connection.answer()).headers["connection"] == "close"
    assert await connection.closed()


@pytest.mark.parametrize(
    ("head", "status", "word"),
    [
        (b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 505, "2.0"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431, "32768"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", 400, "trailers"),
    ],
)
async def test_what_cannot_be_read_is_told_so(connection: Connection, head: bytes, status: int, word: str) -> None:
    """In the envelope of all answers."""
    await connection.send(head)
    answer = await connection.answer()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert word in answer.message
    assert await connection.closed()


async def test_what_came_before_a_fault_is_answered(connection: Connection) -> None:
    await connection.send(CREATE + b"\r\n" + CONFIG + b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [(await connection.answer()).status for _ in range(2)] == [200, 400]
    assert await connection.closed()


# --- slow and gone ---------------------------------------------------------------------------------------------------


async def test_who_is_refused_may_send_on_for_a_while(api: Api) -> None:
    """A client that is reset while it sends may not get to read why."""

    def refused() -> bytes:
        said = b""
        with socket.create_connection(("127.0.0.1", api.port), timeout=DEADLINE) as client:
            client.sendall(b"POST /api/v1/grading_run HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
            while piece := client.recv(65_536):
                said += piece
            for _ in range(5):
                client.sendall(b"x" * 65_536)
        return said

    assert (await asyncio.to_thread(refused)).startswith(b"HTTP/1.1 401 ")


async def test_an_answer_that_nobody_takes_is_not_kept(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is taken slowly is sent to its end."""
    size = 30_000_000

    async def large(handler: HealthHandler) -> None:
        handler.finish("x" * size)

    monkeypatch.setattr(HealthHandler, "get", large)
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.8)
    async with serving(sqlite_url) as api, connect(api.port) as slow, connect(api.port) as stuck:
        for asking in (stuck, slow):
            await asking.head("GET", "/healthz")
        taken = 0
        async with asyncio.timeout(DEADLINE):
            while taken < size:
                taken += len(await slow.piece(500_000))
                await asyncio.sleep(0.03)  # the slowness itself
            assert len(await stuck.everything()) < size


@pytest.fixture
def at_the_gate(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Holds up whoever shows a token, until it is set."""
    opened = asyncio.Event()
    identify = Access.identify

    async def identifying(access: Access, token: str) -> tuple[Principal, ...]:
        await opened.wait()
        return await identify(access, token)

    monkeypatch.setattr(Access, "identify", identifying)
    return opened


async def test_who_vanishes_before_its_handler_is_ready_leaves_nothing(
    sqlite_url: str, at_the_gate: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """A stop would wait for its request, and refuse it in the end."""
    async with serving(sqlite_url) as api:
        async with connect(api.port) as connection:
            await connection.send(CREATE + b"\r\n")
            await eventually(lambda: at_work(1))
        for _ in range(10):  # by now the connection's end was heard
            await api.ping()
        at_the_gate.set()
        await eventually(lambda: at_work(0))
    assert " 503 " not in caplog.text


async def test_a_body_that_breaks_off_in_the_middle_leaves_nothing(connection: Connection) -> None:
    await connection.send(CREATE.replace(b"Content-Length", b"X") + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
    await eventually(lambda: at_work(1))
    await connection.send(b"what?\r\n")
    assert (await connection.answer()).status == 400
    await eventually(lambda: at_work(0))


async def test_a_body_is_not_read_before_somebody_takes_it(connection: Connection, at_the_gate: asyncio.Event) -> None:
    size = 30_000_000
    await connection.head("POST", "/api/v1/grading_run", Content_Length=str(size))
    sending = asyncio.create_task(connection.flood(b" " * 1_000_000, size))
    await asyncio.wait([sending], timeout=1.0)
    assert not sending.done()
    at_the_gate.set()
    assert await sending == size
    assert (await connection.answer()).status == 400


async def at_work(count: int) -> bool:
    """Whether so many handlers are."""
    return len([task for task in asyncio.all_tasks() if "_execute" in repr(task) and not task.done()]) == count


async def test_who_reads_no_answers_is_not_given_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that were sent ahead wait until there is room for their answers."""
    answered = 0

    async def large(handler: HealthHandler) -> None:
        nonlocal answered
        answered += 1
        handler.finish("x" * 1_000_000)

    monkeypatch.setattr(HealthHandler, "get", large)
    async with connect(api.port) as connection:
        await connection.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        for _ in range(100):  # each goes round the same loop several times
            await runs(api)
        assert 0 < answered < 50
        for _ in range(200):
            assert len((await connection.answer()).body) == 1_000_000
    assert answered == 200


async def runs(api: Api) -> int:
    return len((await api.data("GET", "grading_run"))["grading_runs"])
