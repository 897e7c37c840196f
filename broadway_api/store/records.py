"""How values that no store looks into are written: as JSON text, which keeps every number, key and order exactly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from broadway_api import runconfig
from broadway_api.domain import Attempt, Reason, RunConfig

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_text(value: Any) -> str:
    """A JSON value as compact text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def from_text(text: str) -> Any:
    """The inverse of `to_text`."""
    return json.loads(text)


def config_to_text(config: RunConfig) -> str:
    """A run config as text."""
    return to_text(runconfig.to_json(config))


def config_from_text(text: str) -> RunConfig:
    """The inverse of `config_to_text`."""
    return runconfig.from_json(from_text(text))


def to_millis(time: datetime) -> int:
    """Whole milliseconds since 1970, exactly."""
    return (time - EPOCH) // timedelta(milliseconds=1)


def from_millis(millis: int) -> datetime:
    """The inverse of `to_millis`."""
    return EPOCH + timedelta(milliseconds=millis)


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
