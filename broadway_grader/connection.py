"""HTTP to the API: connections that are kept, and a failure of each kind as an `ApiError`."""

from __future__ import annotations

import io
import json
import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from broadway_grader.errors import CutOff, ServerBusy, SetupError, Unreachable

#: Seconds that the API may take to answer a call, beyond what it is asked to hold a poll.
ANSWER_TIMEOUT = 30.0
#: Bytes a second that it takes of a body at least; the API's own bound.
SLOWEST = 1000
#: Bytes of a body that are sent at once; more would hold up the event loop.
AT_ONCE = 2**20
#: Seconds that a connection which nobody uses is kept for the next call. Longer than from one heartbeat to the next: a
#: connection, let alone TLS on it, costs the API more than they do. Shorter than the API and proxies keep their ends.
KEEP_ALIVE = 60.0
#: Most seconds of a `Retry-After` that are honoured: a proxy that says "in an hour" must not idle a grader for one.
LONGEST_RETRY_AFTER = 60.0
#: Statuses beside 5xx that say "later": request timeout and too many requests.
BUSY_STATUSES = frozenset({408, 429})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the API, or a proxy before it, has answered."""

    status: int
    reason: str
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):  # also text that is no UTF-8
            return None


class Connection:
    """Asks one API with one cluster token. Use as an async context manager."""

    def __init__(self, url: str, token: str, *, ca_certificate: Path | None, answer_timeout: float) -> None:
        """Raises SetupError if `ca_certificate` cannot be used."""
        self._base = f"{url.rstrip('/')}/api/v1/"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._tls = _tls(ca_certificate)
        self._answer_timeout = answer_timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(ssl=self._tls, keepalive_timeout=KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,  # proxies
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        patience: float = 0.0,
        within: float | None = None,
    ) -> Answer:
        """Send a request; any answer but one that says "later".

        `patience`: seconds that the API was asked to hold it. `within`: seconds it may take beside that, if not those
        that it usually has. Raises Unreachable, CutOff, ServerBusy.
        """
        if self._session is None:
            raise RuntimeError("a connection must be entered first")
        within = within or self._answer_timeout
        total = within + patience + len(body or b"") / SLOWEST
        try:
            async with self._session.request(
                method,
                self._base + path,
                headers=headers,
                data=body if body is None or len(body) <= AT_ONCE else io.BytesIO(body),
                params=query,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=total, connect=within, sock_read=within + patience),
            ) as response:
                answer = Answer(status=response.status, reason=response.reason or "", body=await response.read())
                retry_after = response.headers.get("Retry-After", "0")
        except (aiohttp.ClientError, TimeoutError) as error:
            kind = CutOff if _is_cut_off(error) else Unreachable
            raise kind(f"{method} {path}: {_explained(error, self._base)}") from error
        if answer.status >= 500 or answer.status in BUSY_STATUSES:
            raise ServerBusy(f"{method} {path}: status {answer.status}", _seconds(retry_after))
        return answer


def _is_cut_off(error: BaseException) -> bool:
    """Whether there was a connection, and it ended before the answer did."""
    if isinstance(error, TimeoutError | aiohttp.ClientConnectorError):
        return False
    return isinstance(
        error,
        aiohttp.ServerDisconnectedError
        | aiohttp.ClientOSError
        | aiohttp.ClientPayloadError
        | aiohttp.ClientResponseError,
    )


def _explained(error: BaseException, base: str) -> str:
    """What went wrong, and what to do where the two sides do not agree on TLS."""
    text = str(error) or type(error).__name__  # a timeout has no text of its own
    secure = base.startswith("https:")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"the API's certificate is not trusted: {text}; name its authority with --ca-certificate"
    if secure and ("WRONG_VERSION_NUMBER" in text or "record layer failure" in text):
        return f"the API does not speak HTTPS: {text}; write http:// in --api"
    if not secure and _is_cut_off(error):
        return f"the connection was closed without an answer: {text}; if it always is, write https:// in --api"
    return text


def _tls(ca_certificate: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_certificate is not None:
        try:
            context.load_verify_locations(cafile=ca_certificate)
        except (OSError, ssl.SSLError) as error:
            raise SetupError(f"cannot use the CA certificate {ca_certificate}: {error}") from error
    return context


def _seconds(retry_after: str) -> float:
    try:
        seconds = float(retry_after)
    except ValueError:  # the form with a date; the back-off does without
        return 0.0
    if math.isnan(seconds):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
