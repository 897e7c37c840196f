"""Does over HTTP what `exchange` and `events` ask for: for programs that wait, and for those with an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from broadway_client.connection import EVENTS_TIMEOUT, Connection
from broadway_client.errors import Unavailable
from broadway_client.events import Event, Feed, is_stream
from broadway_client.exchange import Flow, Pause, Reply, Request, Retries, T


class Transport:
    """Connections of a program that waits."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca_certificate: Path | None = None,
        patience: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises InvalidSettings. `ca_certificate`: PEM file of a private authority."""
        self._http = httpx.Client(**Connection(url=url, token=token, ca_certificate=ca_certificate).settings())
        self._retries = Retries(patience=patience)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _events(self, feed: Feed[Event]) -> Iterator[Event]:
        while not feed.is_over:
            cause: httpx.TransportError | Unavailable | None = None
            try:
                request = feed.request()
                with self._http.stream(
                    request.method,
                    request.path,
                    params=request.params or None,
                    headers=request.headers,
                    timeout=EVENTS_TIMEOUT,
                ) as response:
                    if not is_stream(response):
                        response.read()
                    feed.opened(response)
                    for chunk in response.iter_bytes():
                        yield from feed.take(chunk)
            except (httpx.TransportError, Unavailable) as error:
                cause = error
            if not feed.is_over:
                self._sleep(feed.interrupted(cause))

    def _do(self, flow: Flow[T]) -> T:
        reply: Reply | None = None
        try:
            while True:
                step = flow.send(reply)
                reply = self._step(step)
        except StopIteration as end:
            result: T = end.value
            return result

    def _step(self, step: Request[object] | Pause) -> Reply | None:
        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return None
        try:
            return self._http.request(
                step.method, step.path, params=step.params or None, headers=step.headers, content=step.content
            )
        except httpx.TransportError as error:
            return error


class AsyncTransport:
    """Connections of a program with an event loop."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca_certificate: Path | None = None,
        patience: float = 30.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Raises InvalidSettings. `ca_certificate`: PEM file of a private authority."""
        self._http = httpx.AsyncClient(**Connection(url=url, token=token, ca_certificate=ca_certificate).settings())
        self._retries = Retries(patience=patience)
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _events(self, feed: Feed[Event]) -> AsyncGenerator[Event, None]:
        while not feed.is_over:
            cause: httpx.TransportError | Unavailable | None = None
            try:
                request = feed.request()
                async with self._http.stream(
                    request.method,
                    request.path,
                    params=request.params or None,
                    headers=request.headers,
                    timeout=EVENTS_TIMEOUT,
                ) as response:
                    if not is_stream(response):
                        await response.aread()
                    feed.opened(response)
                    async for chunk in response.aiter_bytes():
                        for event in feed.take(chunk):
                            yield event
            except (httpx.TransportError, Unavailable) as error:
                cause = error
            if not feed.is_over:
                await self._sleep(feed.interrupted(cause))

    async def _do(self, flow: Flow[T]) -> T:
        reply: Reply | None = None
        try:
            while True:
                step = flow.send(reply)
                reply = await self._step(step)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _step(self, step: Request[object] | Pause) -> Reply | None:
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return None
        try:
            return await self._http.request(
                step.method, step.path, params=step.params or None, headers=step.headers, content=step.content
            )
        except httpx.TransportError as error:
            return error
