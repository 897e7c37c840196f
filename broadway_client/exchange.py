"""One request and its answer, repeated where that is safe: the whole of it without any input or output.

A flow is a generator. It yields a `Request` and is sent the `Reply`, or yields a `Pause` and is sent None; what it
returns is the call's result. The two transports only do what a flow asks for.
"""

from __future__ import annotations

import json
import random
import ssl
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

import httpx

from broadway_client import codec
from broadway_client.errors import (
    ApiError,
    Conflict,
    Fault,
    Forbidden,
    InvalidRequest,
    NotBroadway,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreachable,
)

T = TypeVar("T")

#: What a request came to: an answer, or that none came.
Reply = httpx.Response | httpx.TransportError

_LATER = frozenset({408, 429, 502, 503, 504})
_REFUSALS: Mapping[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
}
#: Seconds of a `Retry-After` that are believed.
_LONGEST_RETRY_AFTER = 60.0


@dataclass(frozen=True, kw_only=True)
class Request(Generic[T]):
    """A request and the kind of its answer, or `str` where that is text. `repeatable`: sent twice does no more."""

    method: str
    path: str
    answer: type[T]
    repeatable: bool
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[T]):
    """An answer. `repeated`: an earlier sending of the same request may have been carried out, its answer lost."""

    answer: T
    repeated: bool


Flow = Generator[Request[Any] | Pause, Reply | None, T]


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long to go on after failures that may pass. All in seconds."""

    patience: float = 30.0  # in all; 0: never try again
    first: float = 0.25
    longest: float = 5.0
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random

    def pause(self, failures: int, at_least: float = 0.0) -> float:
        """Seconds to wait after the `failures`-th failure in a row: between half of 0.25, 0.5, 1 … 5 and all of it."""
        ceiling = min(self.longest, self.first * 2.0 ** min(failures - 1, 32))
        return max(at_least, ceiling * (1 + self.chance()) / 2)


def segment(text: str) -> str:
    """One segment of a path, whatever the text holds; never empty, which would be another path."""
    return quote(text, safe="") or "-"


def exchange(request: Request[T], retries: Retries) -> Flow[Outcome[T]]:
    """Send until there is an answer. Raises ClientError; it says whether the last try was one of several."""
    began, failures, repeated = retries.clock(), 0, False
    while True:
        reply = cast(Reply, (yield request))
        try:
            return Outcome(answer=read(request, reply), repeated=repeated)
        except (Unreachable, Unavailable) as error:
            failures += 1
            unsent = isinstance(error, Unreachable) and not error.sent
            final = isinstance(error, Unreachable) and error.final
            pause = retries.pause(failures, error.retry_after if isinstance(error, Unavailable) else 0.0)
            if final or not (request.repeatable or unsent) or retries.clock() - began + pause > retries.patience:
                raise
            repeated = repeated or not unsent
        except ApiError as error:
            error.repeated = repeated
            raise
        yield Pause(seconds=pause)


def read(request: Request[T], reply: Reply) -> T:
    """The answer. Raises ClientError for whatever is none."""
    if isinstance(reply, httpx.TransportError):
        raise unreachable(reply)
    url = _origin(reply.request)
    if request.answer is str and reply.is_success:
        if not reply.headers.get("Content-Type", "").startswith("text/plain"):
            raise NotBroadway(url, f"{request.method} {reply.request.url.path} has no such answer")
        return cast(T, reply.text)
    try:
        body = json.loads(reply.content)
    except (ValueError, RecursionError):
        body = None
    known = body if isinstance(body, dict) and body.get("status") in ("success", "fail", "error") else {}
    if not reply.is_success:
        raise _refusal(reply, url, known)
    if "data" not in known:
        raise NotBroadway(url, f"{request.method} {reply.request.url.path} has no such answer")
    try:
        return codec.decode(request.answer, known["data"])
    except codec.BadShape as error:
        raise NotBroadway(url, f"the answer to {request.method} {request.path}: {error}") from None


def unreachable(error: httpx.TransportError) -> Unreachable:
    """Why no answer came, in words."""
    sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    tls = _tls_fault(error)
    url = _origin(error.request)
    if tls is not None:
        return Unreachable(
            url, f"TLS: {getattr(tls, 'verify_message', '') or tls.reason or tls}", sent=False, final=True
        )
    if isinstance(error, httpx.TimeoutException):
        hint = "; does it speak HTTPS?" if isinstance(error, httpx.ConnectTimeout) and url.startswith("https") else ""
        return Unreachable(url, f"it took too long{hint}", sent=sent)
    problem = str(error).removeprefix("[Errno -2] ").removeprefix("[Errno 111] ").removeprefix("[Errno -3] ")
    if "All connection attempts failed" in problem:  # anyio's words, for whatever happened
        problem = "connection refused, or no way there"
    return Unreachable(url, problem or type(error).__name__, sent=sent)


def _tls_fault(error: BaseException) -> ssl.SSLError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _origin(request: httpx.Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc.decode('ascii', 'replace')}"


def _refusal(reply: httpx.Response, url: str, body: Mapping[str, Any]) -> ApiError | NotBroadway:
    status = reply.status_code
    data = body.get("data") if isinstance(body.get("data"), dict) else body
    message = str((data or {}).get("message") or f"status {status} {reply.reason_phrase}".strip())
    if status in _LATER:
        return Unavailable(status, message, retry_after=_retry_after(reply))
    if not body:  # a proxy's, or a stranger's
        return NotBroadway(url, message)
    if status in (400, 422):
        return _invalid(status, message, data or {})
    return _REFUSALS.get(status, ApiError)(status, message)


def _invalid(status: int, message: str, data: Mapping[str, Any]) -> InvalidRequest:
    listed = data.get("errors") or ()
    faults = [Fault(path=str(one.get("path")), message=str(one.get("message"))) for one in listed]
    return InvalidRequest(
        status,
        message,
        faults=faults,
        more=data.get("more_errors") or 0,
        line=data.get("line"),
        column=data.get("column"),
    )


def _retry_after(reply: httpx.Response) -> float:
    text = reply.headers.get("Retry-After", "")
    # The form with a date is rare, and the back-off does without.
    return min(float(text), _LONGEST_RETRY_AFTER) if text.isdecimal() and len(text) < 10 else 0.0
