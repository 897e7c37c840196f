"""The network's mishaps are those that they are called."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.chaos.proxy import CALM, Link, Mishap, Weather


class Upstream:
    """Answers every whole request, and counts them."""

    def __init__(self) -> None:
        self.whole = 0
        self.broken = 0
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(4)
        except (asyncio.IncompleteReadError, OSError):
            self.broken += 1
        else:
            self.whole += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        self.changed.set()
        writer.close()


@asynccontextmanager
async def link_to(upstream: Upstream, weather: Weather) -> AsyncIterator[Link]:
    async with await asyncio.start_server(upstream.serve, "127.0.0.1", 0) as server:
        port: int = server.sockets[0].getsockname()[1]
        async with Link("link", lambda: [port], "seed", Counter()) as link:
            link.weather = weather
            yield link


async def post(link: Link) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10) as http:
        return await http.post(f"http://127.0.0.1:{link.port}/", content=b"body")


def always(mishap: Mishap) -> Weather:
    return Weather(**{kind.value: float(kind is mishap) for kind in Mishap if kind is not Mishap.NONE})


@pytest.mark.parametrize(("mishap", "times"), [(Mishap.NONE, 1), (Mishap.DELAYED, 1), (Mishap.REPEATED, 2)])
async def test_a_request_goes_through_as_often_as_it_should_and_is_answered(mishap: Mishap, times: int) -> None:
    upstream = Upstream()
    async with link_to(upstream, CALM if mishap is Mishap.NONE else always(mishap)) as link:
        assert (await post(link)).text == "ok"
        while upstream.whole < times:
            upstream.changed.clear()
            await asyncio.wait_for(upstream.changed.wait(), 10)
    assert upstream.whole == times


async def test_an_answer_that_gets_lost_is_one_to_a_request_that_went_through() -> None:
    upstream = Upstream()
    async with link_to(upstream, always(Mishap.UNANSWERED)) as link:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(link)
    assert upstream.whole == 1


async def test_a_request_that_is_cut_reaches_nobody_whole() -> None:
    upstream = Upstream()
    async with link_to(upstream, always(Mishap.CUT)) as link:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(link)
        await asyncio.wait_for(upstream.changed.wait(), 10)
    assert (upstream.whole, upstream.broken) == (0, 1)


async def test_nothing_passes_a_link_that_is_cut_off() -> None:
    upstream = Upstream()
    async with link_to(upstream, CALM) as link:
        link.is_cut = True
        with pytest.raises(httpx.RemoteProtocolError):
            await post(link)
    assert upstream.whole == 0
