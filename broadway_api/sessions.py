"""People at a browser: a token shown once, and then a value that stands for it, good for a working day.

Nothing is kept of a session. Its value holds the token's digest, sealed with the key that all API processes of a store
have, so each of them knows it; and it opens no more than the token does at that moment: a token that is revoked takes
its sessions with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broadway_api.access import Access
from broadway_api.errors import SecretKeyMismatch
from broadway_api.secret_box import SecretBox
from broadway_api.tenants import Principal, digest

#: How long a session lasts.
LIFETIME = timedelta(hours=12)

#: Whose the sealed value is. No course has an empty id, so none of its secrets passes for a session, nor the reverse.
_PLACE = ("", "session")


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Who sits at the browser, as of now."""

    principals: tuple[Principal, ...]  # one, or one for each course that the token opens
    expires_at: datetime
    proof: str  # what the session's own page knows, and no other: it goes with every request that changes something


class Sessions:
    """Begins sessions and knows them again."""

    def __init__(self, access: Access, box: SecretBox, now: Callable[[], datetime]) -> None:
        self._access = access
        self._box = box
        self._now = now

    def begin(self, token: str) -> str:
        """The value of a new session of a token that is known."""
        ends = int((self._now() + LIFETIME).timestamp())
        return self._box.seal(*_PLACE, json.dumps([digest(token), ends]))

    async def resume(self, value: str) -> Session | None:
        """The session of that value; None if it is none of ours, is over, or its token opens nothing any more."""
        try:
            token_digest, ends = json.loads(self._box.unseal(*_PLACE, value))
        except SecretKeyMismatch:
            return None
        expires_at = datetime.fromtimestamp(ends, UTC)
        if expires_at <= self._now():
            return None
        principals = await self._access.identify_digest(token_digest)
        if not principals:
            return None
        return Session(principals=principals, expires_at=expires_at, proof=_proof(value))


def may_have_session(principals: Sequence[Principal]) -> bool:
    """Whether these are people, not graders."""
    return bool(principals) and all(principal.role.of_people for principal in principals)


def _proof(value: str) -> str:
    return hashlib.sha256(f"proof of {value}".encode()).hexdigest()
