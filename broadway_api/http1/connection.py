"""One client's connection: its requests, one after another."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Protocol, cast

from tornado.httputil import HTTPInputError, HTTPServerConnectionDelegate
from tornado.iostream import StreamClosedError

from broadway_api.http1.exchange import Exchange, Peer
from broadway_api.http1.faults import Malformed
from broadway_api.http1.reading import Incoming, RequestReader
from broadway_api.http1.tunnel import Tunnel

logger = logging.getLogger(__name__)

#: Bytes that are read ahead of what works on them, besides those of one read.
READ_AHEAD = 65_536

#: Seconds in which a client may still send what nobody reads, and how many bytes of it. Were the connection closed at
#: once, the client might not get to see why.
LINGER_SECONDS, LINGER_BYTES = 2.0, 1_048_576


class Keeper(Protocol):
    """Who keeps all connections."""

    application: HTTPServerConnectionDelegate

    def common_head(self) -> str:
        """The lines that all answers have in common."""

    def opened(self, connection: Connection) -> None:
        """There is one more."""

    def is_waiting(self, connection: Connection) -> None:
        """It has no request."""

    def is_busy(self, connection: Connection) -> None:
        """It has one."""

    def closed(self, connection: Connection) -> None:
        """It is no more, or speaks HTTP no more."""


class Connection(asyncio.Protocol):
    """Reads requests, has the application answer one at a time, and keeps their order."""

    peer: Peer
    _transport: asyncio.Transport

    def __init__(self, keeper: Keeper) -> None:
        self.is_leaving = False  # no request after this one
        self._keeper = keeper
        self._requests: deque[Incoming] = deque()  # those whose turn has not come
        self._reader = RequestReader(self._requests)
        self._fault: Malformed | None = None  # behind the last of them
        self._exchange: Exchange | None = None  # whose turn it is
        self._is_deaf = False  # what comes is not read any more
        self._unheard = 0  # bytes that came all the same
        self._is_paused = False
        self._unsent = 0  # bytes, at the last look
        self._waiting_for_room: list[asyncio.Future[None]] | None = None  # None: there is room to write

    @property
    def number(self) -> int:
        """That of its file."""
        return int(self._transport.get_extra_info("socket").fileno())

    # --- what the loop says -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        secure = transport.get_extra_info("sslcontext") is not None
        self.peer = Peer(name[0] if isinstance(name, tuple) else None, "https" if secure else "http")
        self._keeper.opened(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._is_deaf or self._fault is not None:
            self._unheard += len(data)
            if self._unheard > LINGER_BYTES:
                self._transport.abort()
            return
        self._reader.take(data)
        self.go_on()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever works for the client that it has gone."""
        self._keeper.closed(self)
        self._requests.clear()
        self._make_room()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.connection_lost()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._waiting_for_room = []

    def resume_writing(self) -> None:
        """It has caught up."""
        self._make_room()
        self.go_on()

    # --- requests -----------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Do what can be done with what has come."""
        if self._is_deaf:
            return
        try:
            self._read_on()
            if self._exchange is None and self._waiting_for_room is None and not self._transport.is_closing():
                self._take_next()
                self._read_on()  # the rest of its body
            if self._exchange is not None:
                self._exchange.deliver()
            if self._exchange is not None and self._fault is not None and not self._exchange.has_whole_request:
                self._exchange.connection_lost()  # the rest of its body will not come
                self._refuse(self._fault)
        except HTTPInputError as error:
            self._refuse(Malformed(str(error)))
        except Exception:
            logger.exception("a connection is closed, for its handler failed")
            self.hang_up()
        self._pace()

    def _read_on(self) -> None:
        if self._fault is None:
            try:
                self._reader.read_on()
            except Malformed as fault:
                self._fault = fault

    def _take_next(self) -> None:
        if self._requests:
            self._keeper.is_busy(self)
            self._exchange = Exchange(self, self._requests.popleft())
            self._exchange.begin(self._keeper.application)
        elif self._fault is not None:
            self._refuse(self._fault)

    def _pace(self) -> None:
        """Let the client send as much as is needed, and no more. While nothing has come ahead, its end is heard."""
        ahead = bool(self._requests) or self._reader.unread > 0
        if self._exchange is not None and self._exchange.undelivered > READ_AHEAD:
            ahead = True
        if ahead != self._is_paused and not self._transport.is_closing():
            self._is_paused = ahead
            (self._transport.pause_reading if ahead else self._transport.resume_reading)()

    def _refuse(self, fault: Malformed) -> None:
        self._exchange = None
        self._fault = fault
        self._transport.write(fault.answer(self.common_head()))
        self._linger()

    # --- answers ------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Send bytes. The future is done when there is room for more; StreamClosedError if nobody is there."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._is_deaf or self._transport.is_closing():
            future.set_exception(StreamClosedError())
            future.exception()  # who does not ask need not know
            return future
        self._transport.write(data)
        if self._waiting_for_room is None:
            future.set_result(None)
        else:
            self._waiting_for_room.append(future)
        return future

    def common_head(self) -> str:
        """The lines that all answers have in common."""
        return self._keeper.common_head()

    def _make_room(self) -> None:
        waiting, self._waiting_for_room = self._waiting_for_room, None
        for future in waiting or ():
            if not future.done():
                future.set_result(None)

    def answered(self, exchange: Exchange) -> None:
        """The answer is written: close, or take the next request."""
        if exchange is not self._exchange:
            return  # it was given up, and nobody heard its answer
        self._exchange = None
        self._keeper.is_waiting(self)
        if not exchange.has_whole_request:
            self._linger()
        elif exchange.closes:
            self._transport.close()
        elif self._requests or self._fault is not None or self._is_paused:
            asyncio.get_running_loop().call_soon(self.go_on)

    def _linger(self) -> None:
        """Say that nothing more will be said, and let the client finish."""
        self._is_deaf = True
        self._requests.clear()
        if self._transport.is_closing():
            return
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)

    # --- ends ---------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Close as soon as nothing is under way."""
        self.is_leaving = True
        if self._is_deaf:
            self._transport.abort()
        elif self._exchange is None:
            self._transport.close()

    def hang_up(self) -> None:
        """Close at once."""
        self._transport.abort()

    def has_progressed(self) -> bool:
        """Whether the client has read something of what it was sent since the last look, and not yet all."""
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        return 0 < self._unsent != before

    def detach(self) -> Tunnel:
        """Hand the transport over to another protocol."""
        self._exchange = None
        self._is_deaf = True
        self._keeper.closed(self)
        return Tunnel(self._transport, self._reader.rest or b"")
