"""How values that no store looks into are written: as JSON text, which keeps every number, key and order exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from broadway_api import json_text, runconfig
from broadway_api.domain import Attempt, Reason, RunConfig
from broadway_api.tenants import Course, Directory, Role, Token

_NONE = "[]"  # most jobs have no attempt behind them, and none has reported

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_MILLISECOND = timedelta(milliseconds=1)


def to_text(value: Any) -> str:
    """A JSON value as compact text."""
    return json_text.encode(value).decode()


def from_text(text: str) -> Any:
    """The inverse of `to_text`."""
    return [] if text == _NONE else json_text.decode(text)


def config_to_text(config: RunConfig) -> str:
    """A run config as text."""
    return to_text(runconfig.to_json(config))


def config_from_text(text: str) -> RunConfig:
    """The inverse of `config_to_text`."""
    return runconfig.from_json(from_text(text))


def to_millis(time: datetime) -> int:
    """Whole milliseconds since 1970, exactly."""
    return (time - EPOCH) // _MILLISECOND


def from_millis(millis: int) -> datetime:
    """The inverse of `to_millis`: a float has room for milliseconds until the year 2242."""
    return datetime.fromtimestamp(millis / 1000, UTC)


def attempts_to_text(attempts: Iterable[Attempt]) -> str:
    """Ended attempts as text."""
    return to_text(
        [
            {
                "number": attempt.number,
                "worker_id": attempt.worker_id,
                "reason": attempt.reason,
                "started_at": to_millis(attempt.started_at),
                "finished_at": to_millis(attempt.finished_at),
                "reported": attempt.reported,
            }
            for attempt in attempts
        ]
    )


def attempts_from_text(text: str) -> tuple[Attempt, ...]:
    """The inverse of `attempts_to_text`."""
    return tuple(_attempt(data) for data in from_text(text))


def _attempt(data: Mapping[str, Any]) -> Attempt:
    return Attempt(
        number=data["number"],
        worker_id=data["worker_id"],
        reason=None if data["reason"] is None else Reason(data["reason"]),
        started_at=from_millis(data["started_at"]),
        finished_at=from_millis(data["finished_at"]),
        reported=data["reported"],
    )


def directory_to_json(directory: Directory) -> dict[str, Any]:
    """Courses and tokens as a JSON value, without the version, which stands beside it."""
    return {
        "courses": {
            course.id: {
                "weight": course.weight,
                "tokens": sorted(course.tokens),
                "query_tokens": sorted(course.query_tokens),
                "from_file": course.from_file,
            }
            for course in directory.courses.values()
        },
        "tokens": {
            token.id: {
                "digest": token.digest,
                "role": token.role.value,
                "course": token.course,
                "label": token.label,
                "created_at": to_millis(token.created_at),
                "expires_at": token.expires_at and to_millis(token.expires_at),
                "revoked_at": token.revoked_at and to_millis(token.revoked_at),
            }
            for token in directory.tokens.values()
        },
    }


def directory_from_json(value: Mapping[str, Any], version: int) -> Directory:
    """The inverse of `directory_to_json`."""

    def time(millis: int | None) -> datetime | None:
        return None if millis is None else from_millis(millis)

    return Directory(
        courses={
            course_id: Course(
                id=course_id,
                weight=entry["weight"],
                tokens=frozenset(entry["tokens"]),
                query_tokens=frozenset(entry["query_tokens"]),
                from_file=entry["from_file"],
            )
            for course_id, entry in value["courses"].items()
        },
        tokens={
            token_id: Token(
                id=token_id,
                digest=entry["digest"],
                role=Role(entry["role"]),
                course=entry["course"],
                label=entry["label"],
                created_at=from_millis(entry["created_at"]),
                expires_at=time(entry["expires_at"]),
                revoked_at=time(entry["revoked_at"]),
            )
            for token_id, entry in value["tokens"].items()
        },
        version=version,
    )
