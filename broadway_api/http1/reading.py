"""Bytes of a connection become requests, within bounds."""

from __future__ import annotations

from collections import deque
from http import HTTPStatus

import httptools
from tornado.httputil import HTTPHeaders, RequestStartLine

from broadway_api.http1.faults import Malformed

#: Bytes of a request's head.
LARGEST_HEAD = 32_768

#: Its lines; browsers send twenty.
MOST_HEADERS = 100

#: Bytes that are parsed at a time: as many requests as are in them are kept, the rest stays bytes.
SLICE = 16_384

_VERSIONS = ("1.0", "1.1")


class Incoming:
    """A request, as far as it has come."""

    __slots__ = ("_fields", "body", "is_whole", "keeps_alive", "start_line", "wants_websocket")

    def __init__(
        self,
        start_line: RequestStartLine,
        fields: list[tuple[bytes, bytes]],
        *,
        keeps_alive: bool,
        wants_websocket: bool,
    ) -> None:
        self.start_line = start_line
        self.keeps_alive = keeps_alive  # whether the connection may carry another one after it
        self.wants_websocket = wants_websocket
        self.body: deque[bytes] = deque()  # pieces that nobody has taken yet
        self.is_whole = False
        self._fields = fields

    def headers(self) -> HTTPHeaders:
        """Its headers. Made when its turn has come, for they need much more room than their bytes."""
        headers = HTTPHeaders()
        for name, value in self._fields:
            field = name.decode("latin1")
            if field in headers:
                headers.add(field, value.decode("latin1").rstrip(" \t"))
            else:
                headers[field] = value.decode("latin1").rstrip(" \t")  # much cheaper: the parser has looked at it
        return headers


class RequestReader:
    """Makes requests of bytes, and appends each to `requests` as soon as its head is there.

    Behind a fault, and behind a request for a WebSocket, nothing is read any more; what came behind the latter is
    `rest`.
    """

    def __init__(self, requests: deque[Incoming]) -> None:
        self.rest: bytes | None = None
        self._requests = requests
        self._parser = httptools.HttpRequestParser(self)
        self._unread = b""
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._is_in_head = False
        self._head_bytes = 0  # of the head, as far as the parser has told
        self._fed_bytes = 0  # of the head, as far as it has come
        self._ended_one = False  # whether a request ended in what was fed last
        self._incoming: Incoming | None = None  # whose body is being read

    @property
    def unread(self) -> int:
        """Bytes that have come and were not looked at."""
        return len(self._unread) + len(self.rest or b"")

    def take(self, data: bytes) -> None:
        """Keep what has come."""
        if self.rest is not None:
            self.rest += data
        else:
            self._unread = self._unread + data if self._unread else data

    def read_on(self) -> None:
        """Read until there is a request more, or nothing left. Raises Malformed; what was read before is kept."""
        while self._unread and not self._requests:
            data, self._unread = self._unread[:SLICE], self._unread[SLICE:]
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        self._ended_one = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stop_or_ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, Malformed):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            too_large = "Content-Length overflow" in str(error)
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST
            raise Malformed(f"the request cannot be read: {error}", status) from error
        if self._is_in_head and not self._ended_one:  # all of it is of one head, of which the parser keeps a line back
            self._fed_bytes += len(data)
            self._refuse_beyond(self._fed_bytes)

    def _stop_or_ignore_upgrade(self, rest: bytes) -> None:
        """The parser stops behind a head that asks for another protocol; only to that of WebSockets we change."""
        if self._incoming is not None:
            self.rest, self._unread = rest + self._unread, b""
            return
        fields = [field for field in self._fields if field[0].lower() not in (b"upgrade", b"connection")]
        lines = [b"%s: %s\r\n" % field for field in [*fields, (b"Connection", b"close")]]
        first = b"%s %s HTTP/1.1\r\n" % (self._parser.get_method(), self._target)
        self._parser = httptools.HttpRequestParser(self)
        self._feed(b"".join([first, *lines, b"\r\n", rest]))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        self._refuse_beyond(self._head_bytes)

    def _refuse_beyond(self, size: int) -> None:
        if size > LARGEST_HEAD:
            raise Malformed(
                f"path and headers are longer than {LARGEST_HEAD} bytes", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            )

    # --- what the parser calls ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._incoming = None
        self._target = b""
        self._fields = []
        self._is_in_head = True
        self._head_bytes = self._fed_bytes = 0

    def on_url(self, piece: bytes) -> None:
        """More of its target."""
        self._target += piece
        self._count(len(piece))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of its head, or behind its body."""
        if self._incoming is not None:
            raise Malformed("there are trailers behind the body; leave them out")
        self._fields.append((name, value))
        if len(self._fields) > MOST_HEADERS:
            raise Malformed(f"more than {MOST_HEADERS} header lines", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        """The head is over."""
        parser = self._parser
        self._is_in_head = False
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise Malformed(f"HTTP/{version} is not spoken here", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        upgrades = parser.should_upgrade()
        wants_websocket = upgrades and any(
            name.lower() == b"upgrade" and value.strip().lower() == b"websocket" for name, value in self._fields
        )
        method = parser.get_method().decode()
        if upgrades and not wants_websocket and method != "CONNECT":
            return
        self._incoming = Incoming(
            RequestStartLine(method, self._target.decode("latin1"), f"HTTP/{version}"),
            self._fields,
            keeps_alive=parser.should_keep_alive() and not upgrades,
            wants_websocket=wants_websocket,
        )
        self._requests.append(self._incoming)

    def on_body(self, piece: bytes) -> None:
        """More of the body."""
        if self._incoming is not None:
            self._incoming.body.append(piece)

    def on_message_complete(self) -> None:
        """The request is over."""
        self._ended_one = True
        if self._incoming is not None:
            self._incoming.is_whole = True
