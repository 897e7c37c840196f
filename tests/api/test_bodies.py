"""Bodies that are too large, never end, or never come: refused early, within bounds, and forgotten."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from broadway_api.handlers.shared import HttpLimits
from tests.api.raw import Connection, connect
from tests.api.serving import TOKEN, Api, eventually, run_config, serving

LIMIT = 100_000
#: Seconds that a body may bring nothing: a busy machine may well take half of one to go on with a test.
STALL = 1.0
MEGABYTE = 1_000_000
#: What the kernel may have taken from the client before the API hung up: two socket buffers.
IN_FLIGHT = 16 * MEGABYTE


@pytest.fixture
async def strict(sqlite_url: str) -> AsyncIterator[Api]:
    """An API with a small limit and little patience."""
    async with serving(sqlite_url, limits=HttpLimits(max_body_bytes=LIMIT, body_stall_seconds=STALL)) as running:
        yield running


@pytest.fixture
async def connection(strict: Api) -> AsyncIterator[Connection]:
    async with connect(strict.port) as opened:
        yield opened


async def test_a_body_that_says_it_is_too_large_is_refused_from_its_head(connection: Connection) -> None:
    await connection.head("POST", "/api/v1/grading_run", Content_Length=str(50 * MEGABYTE))
    answer = await connection.answer()  # before a single byte of it was sent
    assert answer.status == 413
    assert str(LIMIT) in answer.message
    assert await connection.closed()


@pytest.mark.parametrize("length", ["9" * 25, "9" * 5_000, "1" + "0" * 400])
async def test_an_absurd_length_is_too_large(connection: Connection, length: str) -> None:
    await connection.head("POST", "/api/v1/grading_run", Content_Length=length)
    assert (await connection.answer()).status == 413


@pytest.mark.parametrize("length", ["-1", "1.5", "0x10", "ten", "1, 2", "+5", "١"])
async def test_a_length_that_is_none_is_a_bad_request(connection: Connection, length: str) -> None:
    await connection.head("POST", "/api/v1/grading_run", Content_Length=length)
    assert (await connection.answer()).status == 400


@pytest.mark.parametrize("path", ["heartbeat", "worker_register", "grader_register"])
async def test_what_is_always_small_may_not_be_large(api: Api, path: str) -> None:
    answer = await api.call("POST", path, b" " * 262_145, worker=await api.register())
    assert answer.status_code == 413
    assert "262144" in answer.json()["data"]["message"]


async def test_a_client_that_sends_on_is_hung_up_on(connection: Connection) -> None:
    await connection.head("POST", "/api/v1/grading_run", Content_Length=str(64 * MEGABYTE))
    sent = await connection.flood(b"x" * 65_536, 64 * MEGABYTE)
    assert sent < IN_FLIGHT


async def test_a_chunked_body_is_refused_as_soon_as_it_passes_the_limit(connection: Connection) -> None:
    await connection.head("POST", "/api/v1/grading_run", Transfer_Encoding="chunked")
    for _ in range(11):
        await connection.chunk(b"x" * (LIMIT // 10))
    answer = await connection.answer()  # and its end never came
    assert answer.status == 413
    assert await connection.closed()


async def test_an_endless_chunked_body_is_hung_up_on(connection: Connection) -> None:
    await connection.head("POST", "/api/v1/grading_run", Transfer_Encoding="chunked")
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    assert await connection.flood(piece, 64 * MEGABYTE) < IN_FLIGHT


async def test_a_body_of_just_the_limit_is_read(connection: Connection) -> None:
    config = json.dumps(run_config()).encode()
    await connection.head("POST", "/api/v1/grading_run", Content_Length=str(LIMIT))
    await connection.send(config + b" " * (LIMIT - len(config)))
    assert (await connection.answer()).status == 200


async def test_a_chunked_body_is_read(connection: Connection) -> None:
    config = json.dumps(run_config()).encode()
    await connection.head("POST", "/api/v1/grading_run", Transfer_Encoding="chunked")
    for start in range(0, len(config), 7):
        await connection.chunk(config[start : start + 7])
    await connection.chunk(b"")
    assert (await connection.answer()).status == 200


async def test_a_refusal_on_the_head_reads_no_body(connection: Connection) -> None:
    await connection.head("POST", "/api/v1/grading_run", Authorization="wrong", Content_Length=str(64 * MEGABYTE))
    assert (await connection.answer()).status == 401
    assert await connection.flood(b"x" * 65_536, 64 * MEGABYTE) < IN_FLIGHT


@pytest.mark.parametrize("path", ["/nowhere", "/healthz"])
async def test_no_path_takes_an_endless_body(connection: Connection, path: str) -> None:
    await connection.head("POST", path, Transfer_Encoding="chunked")
    assert await connection.flood(b"10000\r\n" + b"x" * 65_536 + b"\r\n", 64 * MEGABYTE) < IN_FLIGHT


@pytest.mark.parametrize("headers", [{"Content_Length": "100"}, {"Transfer_Encoding": "chunked"}])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_body_that_stalls_is_cut_off(connection: Connection, headers: dict[str, str], begun: bool) -> None:
    await connection.head("POST", "/api/v1/grading_run", **headers)
    if begun and "Content_Length" in headers:
        await connection.send(b'{"students"')
    elif begun:
        await connection.chunk(b'{"students"')
    answer = await connection.answer()
    assert answer.status == 408
    assert f"{STALL:g} seconds" in answer.message
    assert await connection.closed()


async def test_a_body_that_comes_slowly_but_comes_is_read(connection: Connection) -> None:
    """Ten pauses: twice as long in all as one stall may be."""
    config = json.dumps(run_config()).encode()
    await connection.head("POST", "/api/v1/grading_run", Content_Length=str(len(config)))
    step = len(config) // 10 + 1
    for start in range(0, len(config), step):
        await asyncio.sleep(STALL / 5)  # the slowness itself, not a wait for anything
        await connection.send(config[start : start + step])
    assert (await connection.answer()).status == 200


@pytest.mark.parametrize("chunked", [True, False])
async def test_work_that_takes_longer_than_a_stall_is_no_stall(
    strict: Api, connection: Connection, chunked: bool
) -> None:
    strict.store.gates["create_run"] = asyncio.Event()
    config = json.dumps(run_config()).encode()
    if chunked:
        await connection.head("POST", "/api/v1/grading_run", Transfer_Encoding="chunked")
        await connection.chunk(config)
        await connection.chunk(b"")
    else:
        await connection.head("POST", "/api/v1/grading_run", Content_Length=str(len(config)))
        await connection.send(config)
    await strict.store.until_called("create_run")
    asyncio.get_running_loop().call_later(1.5 * STALL, strict.store.gates["create_run"].set)
    assert (await connection.answer()).status == 200


async def test_a_poll_with_an_empty_chunked_body_waits_as_long_as_any(strict: Api, connection: Connection) -> None:
    worker = await strict.register()
    await connection.head("GET", "/api/v1/grading_job", worker_id=worker, Prefer="wait=2", Transfer_Encoding="chunked")
    for _ in range(3):  # by then the end of the body is waited for
        await strict.ping()
    await connection.chunk(b"")
    assert (await connection.answer()).status == 498


async def test_clients_that_vanish_within_a_body_leave_nothing(strict: Api) -> None:
    for _ in range(20):
        async with connect(strict.port) as connection:
            await connection.head("POST", "/api/v1/grading_run", Content_Length="1000")
            await connection.send(b"{")
            connection.abort()

    async def forgotten() -> bool:
        await strict.ping()
        return not [task for task in asyncio.all_tasks() if "_execute" in repr(task) and not task.done()]

    await eventually(forgotten)


async def test_a_stalled_upload_does_not_hold_up_the_stop(strict: Api, connection: Connection) -> None:
    await connection.head("POST", "/api/v1/grading_run", Content_Length="1000")
    await strict.ping()
    strict.stop.set()
    assert (await connection.answer()).status == 408


async def test_a_connection_serves_many_requests(connection: Connection) -> None:
    config = json.dumps(run_config()).encode()
    for _ in range(5):
        await connection.head("POST", "/api/v1/grading_run", Content_Length=str(len(config)))
        await connection.send(config)
        assert (await connection.answer()).status == 200
        await connection.head("GET", "/api/v1/grading_run/0123456789abcdef01234567")
        answer = await connection.answer()
        assert (answer.status, answer.headers.get("connection")) == (404, None)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/nowhere", {}),
        ("GET", "/api/v1/workers", {"Authorization": "wrong"}),
        ("POST", "/api/v1/heartbeat", {"worker_id": "x", "Content_Length": "2"}),
        ("POST", "/api/v1/grading_run", {"Content_Length": str(LIMIT + 1)}),
        ("POST", "/api/v1/grading_run", {"Content_Length": "5"}),
        ("BREW", "/api/v1/grading_run", {}),
    ],
)
async def test_whoever_is_hung_up_on_is_told_so(
    connection: Connection, method: str, path: str, headers: dict[str, str]
) -> None:
    """Else a client would send its next request into a connection that is being closed."""
    await connection.head(method, path, **headers)
    answer = await connection.answer()
    assert 400 <= answer.status < 500
    assert answer.headers["connection"] == "close"
    assert await connection.closed()


async def test_a_client_that_asks_first_is_told_before_it_sends(connection: Connection) -> None:
    await connection.head("POST", "/api/v1/grading_run", Content_Length=str(50 * MEGABYTE), Expect="100-continue")
    assert (await connection.answer()).status == 413
    assert await connection.closed()


@pytest.mark.parametrize(
    "head",
    [
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        b"POST /api/v1/grading_run HTTP/1.1\r\nHost: a\r\nAuthorization: " + TOKEN.encode() + b"\r\n"
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_hung_up_on(connection: Connection, head: bytes) -> None:
    await connection.flood(head, 1)
    assert await connection.refused()
