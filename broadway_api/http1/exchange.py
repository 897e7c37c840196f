"""One request and its answer: what came goes to Tornado's handler, what that writes goes to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPOutputError,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from broadway_api.http1.reading import Incoming
from broadway_api.http1.tunnel import Tunnel

#: Statuses whose answers have no body (RFC 9110, section 6.4.1).
_BODILESS = frozenset({101, 204, 304})


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, under the names that Tornado asks by."""

    remote_ip: str | None
    protocol: str  # "http" or "https"


class Line(Protocol):
    """The connection that an exchange is on."""

    peer: Peer
    is_leaving: bool  # no request after this one

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Send bytes. The future is done when there is room for more; StreamClosedError if nobody is there."""

    def common_head(self) -> str:
        """The lines that all answers have in common."""

    def go_on(self) -> None:
        """Do what can be done with what has come."""

    def answered(self, exchange: Exchange) -> None:
        """The answer is written: close, or take the next request."""

    def hang_up(self) -> None:
        """Close at once."""

    def detach(self) -> Tunnel:
        """Hand the transport over to another protocol."""


class Exchange(HTTPConnection):
    """What a handler knows as its connection, for one request."""

    def __init__(self, connection: Line, incoming: Incoming) -> None:
        self.context = connection.peer  # where Tornado looks for the client's address
        self.is_finished = False  # whether the whole answer was written
        self.closes = not incoming.keeps_alive  # the connection, with this answer
        self._connection = connection
        self._incoming = incoming
        self._headers = incoming.headers()
        self._delegate: HTTPMessageDelegate | None = None
        self._takes_body = False
        self._has_all = False  # the handler has the whole request
        self._switches = False  # to WebSocket
        self._is_chunked = False
        self._missing: int | None = None  # bytes of the announced length that were not written yet
        self._on_close: Callable[[], None] | None = None

    # --- the request --------------------------------------------------------------------------------------------

    def begin(self, application: HTTPServerConnectionDelegate) -> None:
        """Show the head to the application. Raises HTTPInputError."""
        incoming = self._incoming
        self._delegate = application.start_request(self._connection, self)
        preparing = self._delegate.headers_received(incoming.start_line, self._headers)
        if preparing is None:
            self._takes_body = True
        else:
            cast("asyncio.Future[None]", preparing).add_done_callback(self._prepared)  # Tornado has no other awaitable

    def _prepared(self, _: asyncio.Future[None]) -> None:
        self._takes_body = True
        incoming = self._incoming
        awaits_word = self._headers.get("Expect", "").lower() == "100-continue"
        if awaits_word and not (self.is_finished or incoming.body or incoming.is_whole):
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._connection.go_on()

    def deliver(self) -> None:
        """Give the handler what has come of the body, if it is ready for it."""
        delegate, incoming = self._delegate, self._incoming
        if not self._takes_body or self._has_all or delegate is None:
            return
        while incoming.body and not self.is_finished:
            delegate.data_received(incoming.body.popleft())
        if incoming.is_whole and not self.is_finished:
            self._has_all = True
            delegate.finish()

    @property
    def has_whole_request(self) -> bool:
        """Whether nothing of the request is missing."""
        return self._incoming.is_whole

    @property
    def undelivered(self) -> int:
        """Bytes of the body that wait for the handler."""
        return sum(map(len, self._incoming.body))

    def connection_lost(self) -> None:
        """The client has gone."""
        callback, self._on_close = self._on_close, None
        if self.is_finished or self._delegate is None:
            return
        if not self._has_all:
            self._delegate.on_connection_close()
        elif callback is not None:
            callback()

    # --- the answer ---------------------------------------------------------------------------------------------

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Whom to tell if the client goes before it has its answer."""
        self._on_close = callback

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """Send the head, and a first piece of the body."""
        _, status, reason = start_line
        method, _, version = self._incoming.start_line
        lines = [f"HTTP/1.1 {status} {reason}", *[f"{name}: {value}" for name, value in headers.get_all()]]
        length = headers.get("Content-Length")
        if method == "HEAD" or status in _BODILESS:
            self._missing = 0
        elif length is not None:
            self._missing = int(length)
        elif version == "HTTP/1.1":
            self._is_chunked = True
            lines.append("Transfer-Encoding: chunked")
        else:
            self.closes = True  # which is how HTTP/1.0 knows where the body ends
        self._switches = status == 101
        if "Connection" in headers:
            self.closes = self.closes or headers["Connection"].lower() == "close"
        elif self.closes or self._connection.is_leaving:
            self.closes = True
            lines.append("Connection: close")
        elif version == "HTTP/1.0":
            lines.append("Connection: keep-alive")
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
            raise ValueError("there is a line break in a header")
        head = f"{head}\r\n{self._connection.common_head()}\r\n\r\n"
        return self._connection.write(head.encode("latin1") + self._framed(chunk or b""))

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Send more of the body. The future is done when a slow client has read enough for more."""
        return self._connection.write(self._framed(chunk))

    def _framed(self, chunk: bytes) -> bytes:
        if self._missing is not None:
            self._missing -= len(chunk)
            if self._missing < 0:
                self.hang_up()
                raise HTTPOutputError("more was written than the announced length")
        if self._is_chunked and chunk:  # an empty one would be the end
            return b"%x\r\n%s\r\n" % (len(chunk), chunk)
        return chunk

    def finish(self) -> None:
        """The answer is complete."""
        self._on_close = None
        if self._missing:
            self.hang_up()
            raise HTTPOutputError(f"{self._missing} bytes less were written than the announced length")
        if self._is_chunked:
            self._connection.write(b"0\r\n\r\n")
        self.is_finished = True
        if not self._switches:
            self._connection.answered(self)

    def hang_up(self) -> None:
        """Close the connection at once, whatever is under way on it."""
        self._connection.hang_up()

    def detach(self) -> Tunnel:
        """Take the connection over, for another protocol than HTTP."""
        return self._connection.detach()
