"""From a token to whoever holds it, in microseconds: the store's directory, kept at hand and looked after.

No request asks the store who its sender is. A change that another API process made is noticed within REFRESH_SECONDS
and the time of one answer of the store; a token that nobody knows is looked for at once, as it may be new.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from broadway_api.cluster_tokens import ClusterTokens
from broadway_api.domain import DEFAULT_COURSE
from broadway_api.errors import CourseNotFound, StoreUnavailable
from broadway_api.store.port import Store
from broadway_api.tenants import Directory, Principal, Role, digest

logger = logging.getLogger(__name__)

#: Seconds between two looks at the store's version of the directory: a revoked token works no longer than two of them.
REFRESH_SECONDS = 1.0

#: Least seconds between two looks that unknown tokens cause, so that guessing costs the store next to nothing,
MISS_SECONDS = 0.25
#: and most seconds that the request of one waits for the answer.
MISS_PATIENCE = 2.0

OPERATOR = Principal(role=Role.OPERATOR)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    digest: str
    principal: Principal
    expires_at: datetime | None = None


class Access:
    """Knows every token that opens something, by its digest."""

    def __init__(
        self,
        store: Store,
        cluster_tokens: ClusterTokens,
        now: Callable[[], datetime],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._cluster_tokens = cluster_tokens
        self._now = now
        self._monotonic = monotonic
        self._directory = Directory(version=-1)
        self._entries: dict[bytes, list[_Entry]] = {}
        # Where an entry stands in the table says nothing about its digest to anybody who measures our answers.
        self._key = secrets.token_bytes(32)
        self._looked = float("-inf")
        self._look: asyncio.Task[None] | None = None

    @property
    def directory(self) -> Directory:
        """All courses and tokens, as of the last look."""
        return self._directory

    def is_cluster_token(self, token_digest: str) -> bool:
        """Whether that is the digest of one of the operator's configured tokens."""
        return any(hmac.compare_digest(token_digest, known) for known in self._cluster_tokens.digests)

    async def identify(self, token: str) -> tuple[Principal, ...]:
        """Whoever the token stands for; none if it opens nothing, several if several courses have it.

        Suspends only for tokens that are unknown so far.
        """
        return await self.identify_digest(digest(token)) if token else ()

    async def identify_digest(self, token_digest: str) -> tuple[Principal, ...]:
        """The same for a token of which only the digest is at hand."""
        known = self._principals(token_digest)
        return known if known or not await self._look_again() else self._principals(token_digest)

    async def has_course(self, course_id: str) -> bool:
        """Whether runs and tokens may belong to that course."""
        if not self._directory.has_course(course_id):
            await self._look_again()
        return self._directory.has_course(course_id)

    async def course_of(self, by: Principal, named: str | None) -> str:
        """The course that a request is about: the one that it names, or else its sender's, or the default course.

        Raises CourseNotFound, also for one that its sender does not see.
        """
        course = named or by.course or DEFAULT_COURSE
        if not by.sees(course) or not await self.has_course(course):
            raise CourseNotFound(course)
        return course

    def take(self, directory: Directory) -> None:
        """Go by a directory that the store has just answered with."""
        if directory.version != self._directory.version:
            self._directory = directory
            self._entries = self._table(directory)

    async def refresh(self) -> None:
        """Take over what has changed in the store. Raises StoreUnavailable."""
        self._looked = self._monotonic()
        known = self._directory.version
        found = await self._store.directory_since(known)
        if found is not None and self._directory.version == known:  # else a change of ours overtook this answer
            self.take(found)

    async def run(self) -> None:
        """For ever: look after the token file and the directory. The store's faults are told once, and ridden out."""
        away = False
        while True:
            self._cluster_tokens.follow()
            try:
                await self.refresh()
            except StoreUnavailable as error:
                if not away:
                    logger.warning("tokens are as of the last look: %s", error)
                away = True
            else:
                away = False
            await asyncio.sleep(REFRESH_SECONDS)

    async def _look_again(self) -> bool:
        """Ask the store, together with all others who wait for it; whether there was an answer."""
        if self._look is None or self._look.done():
            if self._monotonic() - self._looked < MISS_SECONDS:
                return False
            self._look = asyncio.create_task(self._refresh_quietly(), name="look for a token")
        await asyncio.wait([self._look], timeout=MISS_PATIENCE)
        return self._look.done()

    async def _refresh_quietly(self) -> None:
        try:
            await self.refresh()
        except StoreUnavailable as error:
            logger.debug("an unknown token could not be looked for: %s", error)

    def _principals(self, given: str) -> tuple[Principal, ...]:
        if self.is_cluster_token(given):
            return (OPERATOR,)
        now = self._now()
        return tuple(
            entry.principal
            for entry in self._entries.get(self._place(given), ())
            if hmac.compare_digest(entry.digest, given) and (entry.expires_at is None or now < entry.expires_at)
        )

    def _place(self, token_digest: str) -> bytes:
        return hashlib.blake2b(token_digest.encode(), key=self._key, digest_size=16).digest()

    def _table(self, directory: Directory) -> dict[bytes, list[_Entry]]:
        entries = [
            _Entry(digest=token_digest, principal=Principal(role=role, course=course.id))
            for course in directory.courses.values()
            # A token that stands in both lists may do what either may: the second is left out.
            for role, digests in ((Role.ADMIN, course.tokens), (Role.QUERY, course.query_tokens - course.tokens))
            for token_digest in digests
        ]
        entries += [
            _Entry(
                digest=token.digest,
                principal=Principal(
                    role=token.role,
                    course=token.course,
                    owner=token.owner if token.role is Role.WORKER else None,
                ),
                expires_at=token.expires_at,
            )
            for token in directory.tokens.values()
            if token.revoked_at is None and (token.course is None or directory.has_course(token.course))
        ]
        table: dict[bytes, list[_Entry]] = {}
        for entry in entries:
            table.setdefault(self._place(entry.digest), []).append(entry)
        return table
