"""The client's errors, one tree:

ClientError
├── InvalidSettings         the URL, the token or the CA certificate cannot be used
├── Unreachable             no answer from the API
├── NotBroadway             an answer, but not one of a Broadway API's
└── ApiError                the API refused: its status, its message
    ├── InvalidRequest      400, 422: what is wrong and where (`faults`, or `line` and `column`)
    ├── Unauthorized        401: the token is missing, wrong or revoked
    ├── Forbidden           403: the token's role may not do this
    ├── NotFound            404
    ├── Conflict            409
    ├── TooLarge            413
    └── Unavailable         408, 429, 502 to 504: try again later (`retry_after`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ClientError(Exception):
    """Root of everything that this package raises on purpose; its text is fit for people."""


class InvalidSettings(ClientError):
    """What the client was made with cannot be used."""


class Unreachable(ClientError):
    """No answer came. `sent`: the request may have been carried out all the same."""

    def __init__(self, url: str, problem: str, *, sent: bool, final: bool = False) -> None:
        self.url = url
        self.problem = problem
        self.sent = sent
        self.final = final  # trying again cannot help: a certificate that is not trusted, say
        super().__init__(f"no answer from {url}: {problem}")


class NotBroadway(ClientError):
    """What answered is no Broadway API, or speaks another version of its protocol."""

    def __init__(self, url: str, problem: str) -> None:
        self.url = url
        self.problem = problem
        super().__init__(f"{url} does not answer like a Broadway API: {problem}")


class ApiError(ClientError):
    """The API refused a request. `message` is the API's own."""

    def __init__(self, status: int, message: str, *, retry_after: float = 0.0) -> None:
        self.status = status
        self.message = message
        self.retry_after = retry_after  # seconds
        self.repeated = False  # an earlier sending of the same request may have been carried out, its answer lost
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with what was sent: where (a JSONPath, or the name of a parameter), and what."""

    path: str
    message: str


class InvalidRequest(ApiError):
    """What was sent cannot be used, or not now. `more` counts the faults beyond the first ones."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        faults: Sequence[Fault] = (),
        more: int = 0,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(status, message)
        self.faults = tuple(faults)
        self.more = more
        self.line = line
        self.column = column


class Unauthorized(ApiError):
    """The token was refused."""


class Forbidden(ApiError):
    """The token is good, but not for this."""


class NotFound(ApiError):
    """There is no such thing, or it is another course's."""


class Conflict(ApiError):
    """Something else happened in between."""


class TooLarge(ApiError):
    """The body is larger than the API takes."""


class Unavailable(ApiError):
    """The API, its store, or what stands before it, cannot answer now; `retry_after` seconds may help."""
