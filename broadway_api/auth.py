"""From the headers of a request to what its sender shows of itself."""

from __future__ import annotations

from collections.abc import Mapping


def presented_token(authorization: str | None) -> str:
    """The token in an `Authorization` header, alone or after `Bearer `; empty if there is none."""
    given = authorization or ""
    scheme, _, credentials = given.partition(" ")
    # RFC 9110 allows several spaces between scheme and credentials.
    return credentials.lstrip(" ") if scheme.lower() == "bearer" else given


def worker_id(headers: Mapping[str, str]) -> str | None:
    """The worker id of a request, under either of its names (some proxies drop names with an underscore)."""
    return headers.get("Worker_id") or headers.get("Worker-Id")
