"""What is left of a connection that is a WebSocket's now: bytes, to and fro."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError


class Tunnel:
    """As much of Tornado's `IOStream` as its WebSockets ask for."""

    def __init__(self, transport: asyncio.Transport, received: bytes) -> None:
        """Take a transport over; `received` has come already."""
        loop = asyncio.get_running_loop()
        self.io_loop = IOLoop.current()
        self._transport = transport
        self._reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        self._pending: set[asyncio.Task[Any]] = set()
        if received:
            self._reader.feed_data(received)
        transport.resume_reading()

    def read_bytes(self, count: int) -> asyncio.Task[bytes]:
        """So many bytes. Raises StreamClosedError."""
        return self._begin(self._read(count))

    def write(self, data: bytes) -> asyncio.Task[None]:
        """Send bytes; wait until the client has room for more. Raises StreamClosedError."""
        if not self.closed():
            self._writer.write(data)
        return self._begin(self._drain())

    def close(self) -> None:
        """End it, once what was written is sent."""
        self._transport.close()

    def closed(self) -> bool:
        """Whether it has ended."""
        return self._transport.is_closing()

    def set_nodelay(self, value: bool) -> None:
        """Nothing: the loop's transports never delay."""

    async def _read(self, count: int) -> bytes:
        try:
            return await self._reader.readexactly(count)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise StreamClosedError from error

    async def _drain(self) -> None:
        if self.closed():
            raise StreamClosedError
        try:
            await self._writer.drain()
        except OSError as error:
            raise StreamClosedError from error

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._pending.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._pending.discard(task)
        if not task.cancelled():
            task.exception()  # who wrote may not have waited
