"""Heads that are too long, too many, too slow or ambiguous: each is refused clearly, and never read in two ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from broadway_api import health, server
from broadway_api.handlers.shared import HttpLimits
from tests.api.raw import Connection, connect
from tests.api.serving import TOKEN, Api, run_config, serving

AUTHORIZED = b"Host: a\r\nAuthorization: " + TOKEN.encode() + b"\r\n"
CREATE = b"POST /api/v1/grading_run HTTP/1.1\r\n" + AUTHORIZED
LIST = b"GET /api/v1/grading_run HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"


@pytest.fixture
async def connection(api: Api) -> AsyncIterator[Connection]:
    async with connect(api.port) as opened:
        yield opened


async def runs(api: Api) -> list[Any]:
    return list((await api.data("GET", "grading_run"))["grading_runs"])


# --- size ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/workers", "/nowhere"])
async def test_a_long_query_is_told_so(connection: Connection, path: str) -> None:
    await connection.head("GET", f"{path}?q={'x' * 30_000}")
    answer = await connection.answer()
    assert (answer.status, "30000" in answer.message) == (414, True)


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/workers", "/nowhere"])
async def test_too_many_headers_are_told_so(connection: Connection, path: str) -> None:
    await connection.head("GET", path, **{f"X-{number}": "x" for number in range(101)})
    answer = await connection.answer()
    assert (answer.status, "100" in answer.message) == (431, True)


async def test_one_header_a_hundred_times_is_too_many(connection: Connection) -> None:
    await connection.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: x\r\n" * 100 + b"\r\n")
    assert (await connection.answer()).status == 431


@pytest.mark.parametrize("piece", [b"a:\r\n", b"a: " + b"x" * 100_000 + b"\r\n", b"x" * 100_000])
async def test_a_head_beyond_all_bounds_is_hung_up_on(connection: Connection, piece: bytes) -> None:
    await connection.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
    await connection.flood(piece * (1 + 100_000 // len(piece)), 1)
    assert await connection.refused()


async def test_a_poll_may_name_all_the_jobs_that_a_worker_can_hold(api: Api) -> None:
    held = ",".join([f"{number:024x}" for number in range(1_024)])
    answer = await api.call("GET", f"grading_job?holding={held}", worker=await api.register())
    assert answer.status_code == 498


async def test_a_query_of_many_fields_is_refused(connection: Connection) -> None:
    await connection.head("GET", f"/healthz?{'&'.join('a' for _ in range(2_000))}")
    assert await connection.refused()


# --- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\n"])
async def test_a_head_that_never_ends_is_cut_off(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.5)
    async with serving(sqlite_url) as api, connect(api.port) as connection:
        await connection.send(begun)
        assert await connection.closed()


async def test_a_body_that_drips_is_cut_off(sqlite_url: str) -> None:
    """It never stalls: a byte comes each 0.02 s, where 0.1 s are a stall. After 1 s it has to be 1,000 a second."""
    limits = HttpLimits(body_stall_seconds=0.1)
    async with serving(sqlite_url, limits=limits) as api, connect(api.port) as connection:
        await connection.head("POST", "/api/v1/grading_run", Content_Length="100000")
        answering = asyncio.create_task(connection.answer())
        while not answering.done():
            await connection.flood(b" ", 1)
            await asyncio.wait([answering], timeout=0.02)
        assert answering.result().status == 408


async def test_a_thousand_idle_connections_are_no_trouble(api: Api) -> None:
    idle = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", api.port) for _ in range(1_000)))
    try:
        for _, writer in idle:
            writer.write(b"GET /healthz HTTP/1.1\r\n")
        run_id = await api.start()
        assert (await api.run(run_id))["state"] == "students"
    finally:
        for _, writer in idle:
            writer.transport.abort()


# --- one request or two ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length : 5\r\n",
        b"X: a\r\n Content-Length: 5\r\n",
        b"X: a\r\n\tfolded\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\rTransfer-Encoding: chunked\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content_Length\x00: 5\r\n",
        b"Host: b\r\n",
    ],
)
async def test_a_request_that_two_servers_could_frame_differently_is_refused(
    api: Api, connection: Connection, framing: bytes
) -> None:
    """And nothing behind it is taken for a request."""
    smuggled = b"0\r\n\r\n" + CREATE + b"Content-Length: 100\r\n\r\n" + json.dumps(run_config()).encode().ljust(100)
    await connection.send(CREATE + framing + b"\r\n" + smuggled)
    said = await connection.everything()
    assert said.startswith((b"HTTP/1.1 400 ", b"")), said
    assert b"grading_run_id" not in said
    assert await runs(api) == []


@pytest.mark.parametrize(
    "body",
    [
        b"-5\r\n",
        b"0x5\r\n",
        b"5;" + b"x" * 100 + b"\r\n",
        b"+5\r\n",
        b" 5\r\n",
        b"5_0\r\n",
        b"ffffffffffffffffffffffffff\r\n",
        b"\r\n",
        b"5\r\n{}   X\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
async def test_chunks_that_are_none_are_refused(api: Api, connection: Connection, body: bytes) -> None:
    await connection.send(CREATE + b"Transfer-Encoding: chunked\r\n\r\n" + body + LIST)
    said = await connection.everything()
    assert said == b"" or said.startswith(b"HTTP/1.1 400 "), said
    assert said.count(b"HTTP/1.1") <= 1
    assert await runs(api) == []


async def test_requests_that_come_at_once_are_answered_in_order(connection: Connection) -> None:
    body = json.dumps(run_config()).encode()
    create = CREATE + b"Content-Length: %d\r\n\r\n" % len(body) + body
    await connection.send(create + LIST + create + LIST)
    answers = [json.loads((await connection.answer()).body)["data"] for _ in range(4)]
    listed = [[run["grading_run_id"] for run in answers[at]["grading_runs"]] for at in (1, 3)]
    assert listed == [[answers[0]["grading_run_id"]], [answers[2]["grading_run_id"], answers[0]["grading_run_id"]]]


async def test_what_follows_a_refused_body_is_no_request(api: Api, connection: Connection) -> None:
    """A body that is not read could hold a request of somebody else's choice."""
    await connection.send(
        b"POST /api/v1/grading_run HTTP/1.1\r\nHost: a\r\nAuthorization: wrong\r\n"
        b"Content-Length: %d\r\n\r\n" % len(LIST) + LIST
    )
    said = await connection.everything()
    assert said.startswith(b"HTTP/1.1 401 ")
    assert said.count(b"HTTP/1.1") == 1


# --- health ----------------------------------------------------------------------------------------------------------


async def test_asking_for_health_a_thousand_times_costs_the_store_one_write(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "GOOD_FOR", 3600.0)
    await asyncio.gather(*(api.ping() for _ in range(50)))
    assert api.store.calls.count("ping") == 1


async def test_health_is_asked_for_again_after_a_while(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "GOOD_FOR", 0.0)
    await api.ping()
    await api.ping()
    assert api.store.calls.count("ping") == 2


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run_id",
    ["\uff10" * 24, "0" * 23 + "\u0661", "0" * 24 + "\u0301", "\u200b" + "0" * 24, "A" * 24, "0" * 23 + "\u00b2"],
)
async def test_an_id_in_other_digits_is_none(any_api: Api, run_id: str) -> None:
    for path in (f"grading_run/{run_id}", f"grading_job/{run_id}", f"grading_job/{run_id}/log"):
        assert (await any_api.call("GET", path)).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + json.dumps(run_config()).encode(),
        json.dumps(run_config()).encode("utf-16"),
        json.dumps(run_config()).encode("utf-32-le"),
        json.dumps(run_config()).encode().replace(b"s0", b"\xed\xa0\x80"),
        json.dumps(run_config()).encode().replace(b"s0", b"\xc0\x80"),
        json.dumps(run_config(env={"A": "x\0y"})).encode(),
        json.dumps(run_config(env={"$where": "sleep(1000)"})).encode(),
        json.dumps(run_config(env={"a.b": "x"})).encode(),
        json.dumps(run_config(env={"A": {"$gt": ""}})).encode(),
        b'{"students": [{"A": 1e999}], "student_pipeline": [{"image": "i"}]}',
        b'{"students": [{"A": ' + b"9" * 5_000 + b'}], "student_pipeline": [{"image": "i"}]}',
        b'{"students": [{"A": -Infinity}], "student_pipeline": [{"image": "i"}]}',
        b'{"students": [{"A": 1}], "students": [{"A": 2}], "student_pipeline": [{"image": "i"}]}',
    ],
)
async def test_odd_text_in_a_config_is_refused_by_every_store(any_api: Api, body: bytes) -> None:
    answer = await any_api.call("POST", "grading_run", body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["data"]["message"]
    assert await runs(any_api) == []


@pytest.mark.parametrize("course", ["$where", '{"$gt": ""}', "a.b", "\U0001f600", "x" * 10_000])
async def test_an_operator_in_a_query_is_a_text_like_others(any_api: Api, course: str) -> None:
    await any_api.create()
    answer: httpx.Response = await any_api.call("GET", "grading_run", params={"course": course})
    assert answer.status_code in (200, 400)
    assert answer.json()["data"].get("grading_runs", []) == []
