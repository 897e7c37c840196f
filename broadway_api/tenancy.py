"""What the operator does with courses and tokens, one method a use case."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from broadway_api import ids
from broadway_api.access import Access
from broadway_api.errors import CourseNotFound, Fault, InvalidInput
from broadway_api.store.port import Store
from broadway_api.tenants import Course, Directory, Role, Token, digest

logger = logging.getLogger(__name__)


class Tenancy:
    """Courses and tokens: made, listed, taken away. What is changed here is in force in this process at once."""

    def __init__(self, store: Store, access: Access, now: Callable[[], datetime]) -> None:
        self._store = store
        self._access = access
        self._now = now

    async def courses(self) -> list[Course]:
        """All courses that were made or named in a file, by id."""
        directory = await self._read()
        return sorted(directory.courses.values(), key=lambda course: course.id)

    async def course(self, course_id: str) -> Course:
        """Raises CourseNotFound."""
        found = (await self._read()).courses.get(course_id)
        if found is None:
            raise CourseNotFound(course_id)
        return found

    async def put_course(
        self,
        course_id: str,
        *,
        weight: float | None,
        tokens: Sequence[str] | None,
        query_tokens: Sequence[str] | None,
    ) -> Course:
        """Make a course, or change what is given of it. Raises InvalidInput, DirectoryFull."""
        for name, given in (("tokens", tokens), ("query_tokens", query_tokens)):
            self._refuse_cluster_tokens(given or (), f"$.{name}")

        def change(directory: Directory) -> Directory:
            return directory.with_course(
                course_id,
                weight=weight,
                tokens=None if tokens is None else map(digest, tokens),
                query_tokens=None if query_tokens is None else map(digest, query_tokens),
            )

        changed = await self._change(change)
        logger.info("course %s was made or changed", course_id)
        return changed.courses[course_id]

    async def delete_course(self, course_id: str) -> None:
        """Take a course away, with every token's access to it; its runs stay and go on. Raises CourseNotFound."""
        now = self._now()
        await self._change(lambda directory: directory.without_course(course_id, now))
        logger.info("course %s was deleted", course_id)

    async def load_courses(self, courses: Iterable[Course]) -> None:
        """Put these in place of the courses of the last course config, all or none.

        Raises InvalidInput, DirectoryFull.
        """
        named = list(courses)
        for course in named:
            if any(map(self._access.is_cluster_token, course.tokens | course.query_tokens)):
                raise InvalidInput(
                    [
                        Fault(
                            path=f"$.{course.id}", message="a token of it is the cluster token, which opens everything"
                        )
                    ],
                    what="the course config",
                )
        before = await self._read()
        after = await self._change(lambda directory: directory.with_file(named))
        gone = sorted(set(before.courses) - set(after.courses))
        logger.info("%d courses were read from the course config", len(named))
        if gone:
            logger.warning("no longer in the course config, and closed to their tokens: %s", ", ".join(gone))

    async def tokens(self) -> list[Token]:
        """All tokens that were made, in the order in which they were."""
        return sorted((await self._read()).tokens.values(), key=lambda token: token.id)

    async def make_token(
        self, role: Role, *, course: str | None, label: str, expires_in: float | None
    ) -> tuple[Token, str]:
        """A new token and its text, which nobody is told again. Raises CourseNotFound, DirectoryFull."""
        # The beginning tells people, and programs that look for leaked secrets, what this is.
        text = f"bw_{role}_{secrets.token_urlsafe(32)}"
        now = self._now()
        token = Token(
            id=ids.new_id(),
            digest=digest(text),
            role=role,
            course=course,
            label=label,
            created_at=now,
            expires_at=None if expires_in is None else now + timedelta(seconds=expires_in),
        )
        await self._change(lambda directory: directory.with_token(token))
        logger.info("token %s was made: %s %s", token.id, role, course or "")
        return token, text

    async def revoke_token(self, token_id: str) -> Token:
        """End a token; it stays in the list for a while. Raises TokenNotFound."""
        now = self._now()
        changed = await self._change(lambda directory: directory.with_token_revoked(token_id, now))
        logger.info("token %s was revoked", token_id)
        return changed.tokens[token_id]

    def _refuse_cluster_tokens(self, tokens: Iterable[str], path: str) -> None:
        for index, token in enumerate(tokens):
            if self._access.is_cluster_token(digest(token)):
                message = "this is the cluster token, which opens everything"
                raise InvalidInput([Fault(path=f"{path}[{index}]", message=message)])

    async def _read(self) -> Directory:
        return await self._store.directory()

    async def _change(self, change: Callable[[Directory], Directory]) -> Directory:
        directory = await self._store.change_directory(change)
        self._access.take(directory)
        return directory
