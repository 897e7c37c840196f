"""Who may do what: courses, the tokens that open them, and the directory that holds both. Pure; no I/O.

A token is kept as its digest only. Tokens are long and random (those that we make are), so a plain SHA-256 is as good
as any slower function, and takes a microsecond.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from broadway_api.domain import DEFAULT_COURSE
from broadway_api.errors import CourseNotFound, DirectoryFull, TokenNotFound

#: Courses and tokens in one directory, at most: each API process holds all of them in memory.
MAX_ENTRIES = 10_000

#: How long a token that has expired or was revoked stays in the list.
ENDED_TOKEN_RETENTION = timedelta(days=90)


class Role(StrEnum):
    """What a token is for."""

    OPERATOR = "operator"  # everything, as the specification's cluster token
    WORKER = "worker"  # what a grader does, with worker ids of its own
    ADMIN = "admin"  # makes and changes the runs of one course
    QUERY = "query"  # reads the runs of one course

    @property
    def of_course(self) -> bool:
        """Whether a token of this role belongs to one course."""
        return self in (Role.ADMIN, Role.QUERY)

    @property
    def of_people(self) -> bool:
        """Whether somebody may sit at a browser with a token of this role."""
        return self is not Role.WORKER


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """Who sent a request, as its token says."""

    role: Role
    course: str | None = None  # whose runs it sees: roles that belong to a course
    owner: str | None = None  # workers only: whose worker ids it may use, see `Token.owner`

    def sees(self, course: str) -> bool:
        """Whether runs of that course exist, as far as it is told."""
        return self.role is Role.OPERATOR or (self.role.of_course and self.course == course)

    def speaks_for(self, owner: str | None) -> bool:
        """Whether it may use the ids of an owner's workers."""
        return self.role is Role.OPERATOR or (
            self.role is Role.WORKER and self.owner is not None and self.owner == owner
        )

    @property
    def sees_worker_ids(self) -> bool:
        """Whether it is told which worker ran a job, beyond its hostname."""
        return self.role is Role.OPERATOR


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """A tenant. Its tokens here are those it was configured with; `Directory.tokens` may have more."""

    id: str
    weight: float = 1.0  # its share of the fleet, against the other courses' weights
    tokens: frozenset[str] = frozenset()  # digests of admin tokens
    query_tokens: frozenset[str] = frozenset()  # digests of query tokens
    from_file: bool = False  # the operator's course config names it, and decides when it goes


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token that was made here. Its text was shown once, to whoever asked for it."""

    id: str
    digest: str
    role: Role
    course: str | None = None  # of roles that belong to one
    label: str = ""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def owner(self) -> str:
        """Whose a worker is that registers with this token.

        Tokens of one label share their workers, so that a grader that was given a new token still speaks for what it
        was with its old one.
        """
        return f"label {self.label}" if self.label else f"token {self.id}"

    def ended(self, now: datetime) -> datetime | None:
        """Since when it opens nothing any more; None while it does."""
        ends = [end for end in (self.revoked_at, self.expires_at) if end is not None and end <= now]
        return min(ends, default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory:
    """All courses and tokens of a cluster, as one value that is replaced as a whole.

    The methods return the directory after a change, which is `self` if there is nothing to change.
    """

    courses: Mapping[str, Course] = field(default_factory=dict)
    tokens: Mapping[str, Token] = field(default_factory=dict)
    version: int = 0  # grows with every change; the store sets it

    def has_course(self, course_id: str) -> bool:
        """Whether runs and tokens may belong to that course. The default course needs no entry."""
        return course_id == DEFAULT_COURSE or course_id in self.courses

    def with_course(
        self,
        course_id: str,
        *,
        weight: float | None = None,
        tokens: Iterable[str] | None = None,
        query_tokens: Iterable[str] | None = None,
    ) -> Directory:
        """With that course, new or changed: None leaves what is there. Tokens are digests. Raises DirectoryFull."""
        before = self.courses.get(course_id, Course(id=course_id))
        after = replace(
            before,
            weight=before.weight if weight is None else weight,
            tokens=before.tokens if tokens is None else frozenset(tokens),
            query_tokens=before.query_tokens if query_tokens is None else frozenset(query_tokens),
        )
        return self._changed(courses={**self.courses, course_id: after})

    def with_file(self, courses: Iterable[Course]) -> Directory:
        """With the courses of a course config in place of those of the last one.

        A course that the file no longer names goes, and with it all access to it, by whatever token; its runs stay and
        go on. Should the file name it again, tokens that were made for it open it again. Courses that came by another
        way stay. Raises DirectoryFull.
        """
        others = {course.id: course for course in self.courses.values() if not course.from_file}
        named = {course.id: replace(course, from_file=True) for course in courses}
        return self._changed(courses=others | named)

    def without_course(self, course_id: str, now: datetime) -> Directory:
        """Without that course; tokens that were made for it are revoked. Raises CourseNotFound."""
        if course_id not in self.courses:
            raise CourseNotFound(course_id)
        left = {course.id: course for course in self.courses.values() if course.id != course_id}
        ended = {
            token.id: replace(token, revoked_at=now)
            for token in self.tokens.values()
            if token.course == course_id and token.revoked_at is None
        }
        return self._changed(courses=left, tokens={**self.tokens, **ended})

    def with_token(self, token: Token) -> Directory:
        """With a new token; those that ended long before it are forgotten. Raises CourseNotFound, DirectoryFull."""
        if token.course is not None and not self.has_course(token.course):
            raise CourseNotFound(token.course)
        oldest = token.created_at - ENDED_TOKEN_RETENTION
        kept = {other.id: other for other in self.tokens.values() if other.ended(oldest) is None}
        return self._changed(tokens={**kept, token.id: token})

    def with_token_revoked(self, token_id: str, now: datetime) -> Directory:
        """With that token revoked, once and for all. Raises TokenNotFound."""
        token = self.tokens.get(token_id)
        if token is None:
            raise TokenNotFound(token_id)
        if token.revoked_at is not None:
            return self
        return self._changed(tokens={**self.tokens, token_id: replace(token, revoked_at=now)})

    def _changed(
        self, *, courses: Mapping[str, Course] | None = None, tokens: Mapping[str, Token] | None = None
    ) -> Directory:
        after = replace(
            self,
            courses=self.courses if courses is None else courses,
            tokens=self.tokens if tokens is None else tokens,
        )
        if after == self:
            return self
        entries = len(after.courses) + len(after.tokens)
        if entries > MAX_ENTRIES and entries > len(self.courses) + len(self.tokens):
            raise DirectoryFull(MAX_ENTRIES)
        return after


def digest(token: str) -> str:
    """What is kept of a token: 64 hexadecimal digits. Any text has one, also what no header can carry."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
