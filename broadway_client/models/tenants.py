"""Courses, their tokens and their secrets."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from broadway_client.codec import Answer, OpenEnum


class Role(OpenEnum):
    """What a token may do."""

    OPERATOR = "operator"
    WORKER = "worker"
    ADMIN = "admin"
    QUERY = "query"


@dataclass(frozen=True, kw_only=True)
class Course(Answer):
    """A course; `tokens` and `query_tokens` count those that it was configured with."""

    course: str
    weight: float
    tokens: int
    query_tokens: int
    from_file: bool


@dataclass(frozen=True, kw_only=True)
class CourseList(Answer):
    """All courses."""

    courses: tuple[Course, ...]


@dataclass(frozen=True, kw_only=True)
class CourseNamed(Answer):
    """The course that was taken away."""

    course: str


@dataclass(frozen=True, kw_only=True)
class Token(Answer):
    """A token without its text; `state` is `valid`, `expired` or `revoked`."""

    token_id: str
    role: Role
    course: str | None
    label: str
    state: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class TokenMade(Token):
    """A new token with its text, which is shown this once."""

    token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TokenList(Answer):
    """All tokens that were made."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True, kw_only=True)
class Secret(Answer):
    """A secret's name, and when it was set; no call tells a value."""

    name: str
    changed_at: datetime


@dataclass(frozen=True, kw_only=True)
class SecretList(Answer):
    """All secrets of a course."""

    secrets: tuple[Secret, ...]


@dataclass(frozen=True, kw_only=True)
class SecretNamed(Answer):
    """The secret that was deleted."""

    name: str


@dataclass(frozen=True, kw_only=True)
class SecretsResealed(Answer):
    """How many secrets were sealed anew."""

    secrets: int
