"""What graders of this protocol are handed, and what they report. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from broadway_api.course_protocol.shapes import STAGE_FIELDS
from broadway_api.domain import Job, Reason, Result, RunConfig, Stage, StageLog

Json = dict[str, Any]

#: Fields that graders of this protocol leave out of what they check over WebSocket: they would refuse a stage that has
#: them, and end.
NOT_OVER_WEBSOCKET = frozenset({"logs", "cpuset_cpus"})

#: Stages that a report is read for.
MAX_STAGES = 100

#: Of a line for people out of a report, in characters.
_MAX_TEXT = 500

_PLAIN = Stage(image="")


def handout(job: Job, config: RunConfig, envs: Sequence[Mapping[str, str]], *, over_websocket: bool) -> Json:
    """A claimed job, with nothing in it but what such a grader knows."""
    leave_out = NOT_OVER_WEBSOCKET if over_websocket else frozenset()
    stages = zip(config.pipeline(job.type), envs, strict=True)
    return {"grading_job_id": job.id, "stages": [_stage(stage, env, leave_out) for stage, env in stages]}


def _stage(stage: Stage, env: Mapping[str, str], leave_out: frozenset[str]) -> Json:
    data: Json = {}
    for theirs, ours in STAGE_FIELDS.items():
        value = getattr(stage, ours)
        if theirs in leave_out or (value == getattr(_PLAIN, ours) and theirs not in ("networking", "timeout")):
            continue
        data[theirs] = list(value) if isinstance(value, tuple) else value
    if "memory" in data:
        data["memory"] = str(data["memory"])
    return data | {"env": dict(env)}


def result(report: Mapping[str, Any]) -> Result:
    """What came of a job, whatever the shape of the results and logs beside the outcome."""
    success: bool = report["success"]
    infos = list(_infos(report.get("results")))
    reasons = [info["reason"] for info in infos if info.get("reason")]
    return Result(
        success=success,
        reason=None if success else Reason(reasons[-1] if reasons else Reason.STAGE_FAILED),
        info=tuple(infos),
        logs=tuple(_logs(report.get("logs"))),
    )


def _infos(results: Any) -> Iterator[Json]:
    for stage in results[:MAX_STAGES] if isinstance(results, list) else ():
        told = stage if isinstance(stage, dict) else {}
        state = told.get("data") if isinstance(told.get("data"), dict) else {}
        assert isinstance(state, dict)  # noqa: S101 - for the type checker
        code = state.get("ExitCode")
        info: Json = {"exit_code": code if type(code) is int and abs(code) < 2**31 else None}
        if told.get("killed") is True:
            info |= {"exit_code": None, "reason": Reason.TIMEOUT}
        elif state.get("OOMKilled") is True:
            info |= {"reason": Reason.OUT_OF_MEMORY}
        elif told.get("success") is False:
            info |= {"reason": Reason.STAGE_FAILED}
        if isinstance(message := told.get("result"), str):
            info["message"] = message[:_MAX_TEXT]
        yield info


def _logs(logs: Any) -> Iterator[StageLog]:
    texts = {name: logs.get(name) for name in ("stdout", "stderr")} if isinstance(logs, dict) else {}
    stdout, stderr = (text if isinstance(text := texts.get(name), str) else "" for name in ("stdout", "stderr"))
    if stdout or stderr:
        yield StageLog(stage=0, stdout=stdout, stderr=stderr)


def log_text(logs: Sequence[StageLog]) -> dict[str, str]:
    """What all stages of a job printed, one after the other."""
    return {name: "\n".join(text for log in logs if (text := getattr(log, name))) for name in ("stdout", "stderr")}
