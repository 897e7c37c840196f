"""Requests to a local engine, sent and read by the standard library.

The SDK goes through `requests`, which takes some 1.5 ms of CPU for what is a matter of 0.3, and opens a connection for
each container that it asks about. A stage is six requests. Everything above them stays the SDK's: its methods, its
answers, its errors.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import io
import select
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
from docker.transport import UnixHTTPAdapter

#: What a request may come with; one that comes with more goes the SDK's way.
_UNDERSTOOD = frozenset({"params", "data", "headers", "stream", "timeout"})


class LocalRequests:
    """Takes the place of a client's `request` for what a stage asks. Any number of threads may use it."""

    def __init__(self, api: Any) -> None:
        """Take it, if the client's engine is at a local socket; else do nothing."""
        self._idle: collections.deque[_Connection] = collections.deque()
        self._in_general = api.request
        adapter = api.get_adapter(api.base_url)
        if isinstance(adapter, UnixHTTPAdapter):
            self._path = adapter.socket_path
            api.trust_env = False  # there is no proxy on the way, and to look for one is a quarter of the work
            api.request = self.request

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """As that of `requests`, and with its errors."""
        given = {name: value for name, value in options.items() if value is not None or name == "timeout"}
        plain = method in ("POST", "DELETE") and given.keys() <= _UNDERSTOOD
        # Of answers in pieces only output, which ends with its connection: a pull's are the SDK's to take apart.
        if not plain or (given.get("stream") and not url.endswith("/attach")):
            return self._in_general(method, url, **options)  # type: ignore[no-any-return]  # the SDK has no types
        try:
            return self._ask(method, url, **given)
        except TimeoutError as error:
            raise requests.ReadTimeout(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise requests.ConnectionError(error) from error

    def close(self) -> None:
        """Close the connections that nobody uses; idempotent."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _ask(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, object] | None = None,
        data: str | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: float | None = None,
    ) -> requests.Response:
        wanted = {name: value for name, value in (params or {}).items() if value is not None}
        target = urlsplit(url).path + (f"?{urlencode(wanted)}" if wanted else "")
        connection = self._connection(timeout)
        try:
            connection.request(method, target, body=data.encode() if data else None, headers=dict(headers or {}))
            answer = connection.getresponse()
            response = requests.Response()
            response.status_code, response.reason, response.url = answer.status, answer.reason, url
            response.headers.update(answer.getheaders())
            response.raw = answer if stream else io.BytesIO(answer.read())
        except BaseException:
            connection.close()
            raise
        if not stream and not answer.will_close:
            self._idle.append(connection)
        return response

    def _connection(self, timeout: float | None) -> _Connection:
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.is_open():
                    connection.sock.settimeout(timeout)
                    return connection
                connection.close()
        return _Connection(self._path, timeout)


class _Connection(http.client.HTTPConnection):
    """HTTP over a local socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def is_open(self) -> bool:
        """Whether the engine keeps it open. It owes us nothing on it, so what could be read is its end."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)
