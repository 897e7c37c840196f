"""Live output on the wire: what graders post, and the events of those who follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broadway_api.domain import Job
from broadway_api.live_reader import End, Printed, StageTold, Told
from broadway_api.live_tail import Piece, StageNews

Json = dict[str, Any]


def output_from_json(data: Mapping[str, Any]) -> tuple[list[Piece], list[StageNews]]:
    """What a grader posts, in the shape of `schemas.OUTPUT`."""
    pieces = [
        Piece(stage=int(one["stage"]), stream=one["stream"], start=int(one["start"]), data=one["text"].encode())
        for one in data.get("output", ())
    ]
    stages = [
        StageNews(
            stage=int(one["stage"]),
            ended=one["ended"],
            exit_code=one.get("exit_code"),
            reason=one.get("reason"),
            truncated=tuple(one.get("truncated", ())),
        )
        for one in data.get("stages", ())
    ]
    return pieces, stages


def event_to_json(told: Told) -> tuple[str, Json]:
    """An event's name and data."""
    match told.what:
        case Job() as job:
            return "job", _job(job)
        case StageTold(attempt=attempt, news=news):
            return "stage", {
                "attempt": attempt,
                "stage": news.stage,
                "state": "ended" if news.ended else "running",
                "exit_code": news.exit_code,
                "reason": news.reason,
                "truncated": list(news.truncated),
            }
        case Printed(attempt=attempt, piece=piece, dropped=dropped):
            return "output", {
                "attempt": attempt,
                "stage": piece.stage,
                "stream": piece.stream,
                "start": piece.start,
                "text": piece.data.decode(errors="replace"),
                "dropped": dropped,
            }
        case End(job=job, dropped=dropped):
            return "end", _job(job) | {"dropped": dropped}


def _job(job: Job) -> Json:
    return {"job_id": job.id, "state": job.state, "reason": job.reason, "attempt": job.attempt}
