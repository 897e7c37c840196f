"""From the headers of a request to whoever sent it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping


class ClusterToken:
    """The secret that every member of a cluster shares.

    Only its digest is kept. Digests are compared in constant time, so neither the content nor the length of a guess
    shows in the time of the answer.
    """

    def __init__(self, token: str) -> None:
        self._digest = _digest(token)

    def allows(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header holds the token, alone or after `Bearer `."""
        given = authorization or ""
        scheme, _, credentials = given.partition(" ")
        if scheme.lower() == "bearer":
            given = credentials.lstrip(" ")  # RFC 9110 allows several between scheme and credentials
        return hmac.compare_digest(_digest(given), self._digest)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def worker_id(headers: Mapping[str, str]) -> str | None:
    """The worker id of a request, under either of its names (some proxies drop names with an underscore)."""
    return headers.get("Worker_id") or headers.get("Worker-Id")
