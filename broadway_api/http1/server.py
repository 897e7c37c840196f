"""All connections: takes them in, ends those that idle, stops."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from itertools import islice

from tornado.httputil import HTTPServerConnectionDelegate, format_timestamp

from broadway_api.http1.connection import Connection
from broadway_api.open_files import OpenFiles

#: Connections that the kernel keeps until the loop takes them, as many as it allows by default. With fewer, the rest of
#: a fleet that comes back at once, as after a restart, would be reset.
BACKLOG = 4_096

#: Seconds that a client may take to agree on TLS. Until then its connection is none that is closed for want of room.
HANDSHAKE_SECONDS = 10.0

#: Connections without a request that are closed at once when there is no room for another.
CLOSED_AT_ONCE = 32


class Server:
    """Serves an application on sockets that are bound.

    A connection that brings no request, or not the whole head of one, or takes nothing of its answer, is closed after
    `idle_seconds`. One for which there is no room is closed too, for left in the kernel's queue it would keep the loop
    busy; and with it go those that have waited longest for a request, so that nobody can keep others out by doing
    nothing.
    """

    def __init__(
        self,
        application: HTTPServerConnectionDelegate,
        *,
        idle_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """An application, and the headers of whatever is sent."""
        self.application = application
        self._headers = [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._common_head = ""
        self._common_head_of = 0
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._open_files = OpenFiles()
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, float] = {}  # since when; who has waited longest comes first
        self._all_closed = asyncio.Event()
        self._listeners: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None

    async def listen(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Take connections in from now on."""
        for bound in sockets:
            listener = await self._loop.create_server(
                lambda: Connection(self),
                sock=bound,
                backlog=BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
            )
            self._listeners.append(listener)
        self._close_idle()

    def stop(self) -> None:
        """Take no more connections in; those that are there end with the next answer."""
        for listener in self._listeners:
            listener.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self._open:
            connection.is_leaving = True

    async def close_all(self) -> None:
        """End all connections, those that are at work after their answer; wait until they have ended."""
        for connection in list(self._open):
            connection.leave()
        if self._open:
            self._all_closed.clear()
            await self._all_closed.wait()

    def abort_all(self) -> None:
        """End those that are left."""
        for connection in list(self._open):
            connection.hang_up()

    def common_head(self) -> str:
        """The lines that all answers of this second have in common: the date, and what was asked for."""
        now = int(time.time())
        if now != self._common_head_of:
            self._common_head_of = now
            self._common_head = "\r\n".join([f"Date: {format_timestamp(now)}", *self._headers])
        return self._common_head

    # --- what connections say -----------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """There is one more."""
        if not self._open_files.has_room(connection.number):
            connection.hang_up()
            for waiting in list(islice(self._waiting, CLOSED_AT_ONCE)):
                waiting.hang_up()
            return
        self._open.add(connection)
        self.is_waiting(connection)

    def is_waiting(self, connection: Connection) -> None:
        """It has no request."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = self._loop.time()

    def is_busy(self, connection: Connection) -> None:
        """It has one."""
        self._waiting.pop(connection, None)

    def closed(self, connection: Connection) -> None:
        """It is no more, or speaks HTTP no more."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        if not self._open:
            self._all_closed.set()

    def _close_idle(self) -> None:
        now = self._loop.time()
        for connection, since in list(self._waiting.items()):
            if now - since < self._idle_seconds:
                break
            if connection.has_progressed():
                self.is_waiting(connection)
            else:
                connection.hang_up()
        self._sweep = self._loop.call_later(self._idle_seconds / 4, self._close_idle)
