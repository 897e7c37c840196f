"""What graders send and get, as the bodies of `docs/protocol.md`. Pure; what comes in has passed its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from broadway_api import json_text, results
from broadway_api.domain import Claim, Job, Reason, Result, StageLog

Json = dict[str, Any]

#: Characters of a stage's info that are kept; the grader's own need less than 2,000.
MAX_INFO = 65_536

#: What a character of a text is in JSON at most, `\ud83d\ude00`; a float has two such units, 26 bits of an integer one,
#: and one is more than what stands around a value.
_UNIT = 12

#: Of a text within an info that is too long as a whole.
_MAX_INFO_TEXT = 1_000


# --- what workers send -----------------------------------------------------------------------------------------------


def result_from_json(data: Mapping[str, Any]) -> Result:
    """What a worker reported, its output and results taken out of the infos and its reason made one of ours.

    A success with results that are none is the worker's fault, and tried again as such.
    """
    infos = [dict(info) for info in data.get("info", ())]
    logs = [log for stage, info in enumerate(infos) if (log := _take_log(stage, info))]
    success = bool(data["success"])
    reason = None if success else _reason(data.get("reason"), infos)
    reported, errors = _take_results(infos)
    if success and reported is None and errors:
        success, reason = False, Reason.RUNTIME_ERROR
    bounded = [_bounded(info) for info in infos]
    for stage, listed in errors.items():
        bounded[stage]["results_errors"] = listed
    return Result(
        success=success,
        reason=reason,
        info=tuple(bounded),
        logs=tuple(logs),
        results=reported,
    )


def results_from_json(data: Mapping[str, Any], worker_id: str) -> list[tuple[Claim, Result]]:
    """Several results, each with the claim that it ends."""
    return [
        (
            Claim(job_id=entry["job_id"], worker_id=worker_id, attempt=entry.get("attempt")),
            result_from_json(entry),
        )
        for entry in data["results"]
    ]


def _take_results(infos: Sequence[Json]) -> tuple[Json | None, dict[int, list[dict[str, str]]]]:
    """The results that are valid, the last ones if there are several, and by stage what is wrong with the others."""
    valid: Json | None = None
    errors: dict[int, list[dict[str, str]]] = {}
    for stage, info in enumerate(infos):
        if isinstance(info.get("results_errors"), list) and (stated := info.pop("results_errors")):
            errors[stage] = results.errors_from_json(stated)
        if isinstance(info.get("results"), dict):
            reported = info.pop("results")
            faults = results.results_faults(reported)
            if faults:
                errors[stage] = results.errors_to_json(faults)
            else:
                valid = reported
    return valid, errors


def _take_log(stage: int, info: Json) -> StageLog | None:
    stdout, stderr = _take_text(info, "stdout"), _take_text(info, "stderr")
    return StageLog(stage=stage, stdout=stdout, stderr=stderr) if stdout or stderr else None


def _take_text(info: Json, name: str) -> str:
    return info.pop(name) if isinstance(info.get(name), str) else ""


def _reason(stated: str | None, infos: Sequence[Json]) -> Reason:
    candidates = [stated, *(info.get("reason") for info in reversed(infos))]
    known = (Reason(word) for word in candidates if isinstance(word, str) and word in _REPORTABLE)
    return next(known, Reason.STAGE_FAILED)


#: What a worker may say; the others are ours to say.
_REPORTABLE = frozenset(Reason) - {Reason.WORKER_LOST, Reason.SECRET_UNAVAILABLE, Reason.CANCELLED}


def _bounded(info: Json) -> Json:
    """The info, or its short values only, so that no grader can make a job too large for its store."""
    # With a space after each comma and colon, and escapes for what is not ASCII, it is three times as long at most.
    if len(json_text.encode(info)) <= MAX_INFO // 3 or _is_short(info, MAX_INFO):
        return info
    short = {name[:100]: value for name, value in list(info.items())[:30] if _is_short(value, _MAX_INFO_TEXT)}
    return short | {"info_truncated": True}


def _is_short(value: Any, most: int) -> bool:
    """Whether the value has at most so many characters as JSON; of one that has many more, only a part is looked at."""
    least, units = 0, 0  # characters, and units of _UNIT characters, more than which it cannot be
    parts = [value]
    for part in parts:  # which grows meanwhile
        kind, length = type(part), 1
        if kind is str:
            length = len(part)
        elif kind is list:
            length = len(part)
            parts += part
        elif kind is dict:
            length = len(part)
            parts += part
            parts += part.values()
        elif kind is int:
            length = part.bit_length() // 26
        least += length
        units += length + 1
        if least > most:
            return False
    return units * _UNIT <= most or len(json.dumps(value)) <= most


def running_from_json(data: Mapping[str, Any] | None, worker_id: str) -> list[Claim] | None:
    """The jobs that a heartbeat names; None if it names none at all, not even an empty list."""
    if data is None or "running" not in data:
        return None
    return [Claim(job_id=job["job_id"], worker_id=worker_id, attempt=job.get("attempt")) for job in data["running"]]


# --- what workers get ------------------------------------------------------------------------------------------------


def handout_to_json(
    job: Job,
    stages: Sequence[Mapping[str, Any]],
    envs: Sequence[Mapping[str, str]],
    lease: timedelta,
    *,
    secrets: Sequence[Sequence[str]],
    roster: Sequence[Any] | None,
    ended: Sequence[Job] | None,
) -> Json:
    """A claimed job: its `stages` with their environments filled in, the roster, and how the students' jobs ended."""
    data: Json = {
        "job_id": job.id,
        "stages": [
            {**stage, "env": env, "secrets": names} if names else {**stage, "env": env}
            for stage, env, names in zip(stages, envs, secrets, strict=True)
        ],
        "attempt": job.attempt,
        "lease_seconds": lease.total_seconds(),
    }
    if roster is not None:
        data["students"] = list(roster)
    if ended is not None:
        data["student_jobs"] = [
            {
                "job_id": student.id,
                "state": student.state,
                "reason": student.reason,
                "score": student.score,
                "max_score": student.max_score,
            }
            for student in ended
        ]
    return data
