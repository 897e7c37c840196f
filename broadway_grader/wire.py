"""Jobs as the API sends them and results as we do, read into the domain's types; the rest is refused by name."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, TypeVar

from broadway_grader.domain import DEFAULT_TIMEOUT, Job, JobResult, Output, Reason, Stage, StageResult, parse_bytes
from broadway_grader.errors import UnusableAnswer, UnusableJob

# Job ids become parts of directory names.
_JOB_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


Default = TypeVar("Default", bool, None)


class _Fault(ValueError):
    """A member of a job that cannot be used; the message begins with its path."""


def parse_job(data: object) -> Job:
    """Read a job off the wire.

    Raises UnusableJob if the job can be named but not run, UnusableAnswer if it cannot even be named. Members that the
    contract does not have are ignored, so that a newer API can talk to this grader.
    """
    if not isinstance(data, dict):
        raise UnusableAnswer("a job is no object")
    job_id, attempt = data.get("job_id"), data.get("attempt", 1)
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        raise UnusableAnswer("a job has no usable job_id")
    if not isinstance(attempt, int) or isinstance(attempt, bool):
        raise UnusableAnswer(f"job {job_id} has no usable attempt")
    students = data.get("students")
    if students is not None and not isinstance(students, list):
        raise UnusableJob(job_id, attempt, "students is no list")
    student_jobs = data.get("student_jobs")
    if student_jobs is not None and not _is_report(student_jobs, students):
        raise UnusableJob(job_id, attempt, "student_jobs is no list of one object a student")
    try:
        stages = _parse_stages(data.get("stages"))
    except _Fault as fault:
        raise UnusableJob(job_id, attempt, str(fault)) from fault
    return Job(job_id=job_id, attempt=attempt, stages=stages, students=students, student_jobs=student_jobs)


def _parse_stages(data: object) -> list[Stage]:
    if not isinstance(data, list) or not data:
        raise _Fault("stages is no non-empty list")
    return [_parse_stage(stage, f"stages[{index}]") for index, stage in enumerate(data)]


def _parse_stage(data: object, where: str) -> Stage:
    if not isinstance(data, dict):
        raise _Fault(f"{where} is no object")
    members = _Members(data, where)
    image = members.text("image")
    if not image:
        raise _Fault(f"{where}.image is missing")
    entry_point = data.get("entry_point")
    if entry_point is not None and not _is_command(entry_point):
        raise _Fault(f"{where}.entry_point is no non-empty list of strings")
    pids = members.number("pids")
    return Stage(
        image=image,
        env=_parse_env(data.get("env") or {}, f"{where}.env"),
        entry_point=entry_point,
        enable_networking=members.flag("enable_networking", default=False),
        host_name=members.text("host_name"),
        timeout=members.number("timeout") or DEFAULT_TIMEOUT,
        memory=members.size("memory"),
        cpus=members.number("cpus"),
        pids=None if pids is None else max(1, int(pids)),
        cpuset_cpus=members.text("cpuset_cpus"),
        logs=members.flag("logs", default=True),
        user=members.text("user"),
        working_dir=members.text("working_dir"),
        privileged=members.flag("privileged", default=False),
        results=members.flag("results", default=False),
        read_only=members.flag("read_only", default=None),
        secrets=_parse_names(data.get("secrets") or [], f"{where}.secrets"),
    )


class _Members:
    """The optional members of one stage, read by type; null is the same as absent."""

    def __init__(self, data: dict[str, Any], where: str) -> None:
        self._data = data
        self._where = where

    def text(self, name: str) -> str | None:
        value = self._data.get(name)
        if value is None or (isinstance(value, str) and "\0" not in value):
            return value
        raise _Fault(f"{self._where}.{name} is no string")

    def flag(self, name: str, *, default: Default) -> bool | Default:
        value = self._data.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        raise _Fault(f"{self._where}.{name} is neither true nor false")

    def number(self, name: str) -> float | None:
        value = self._data.get(name)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
            return float(value)
        raise _Fault(f"{self._where}.{name} is no number over 0")

    def size(self, name: str) -> int | None:
        value = self._data.get(name)
        try:
            return None if value is None else parse_bytes(value)
        except ValueError as error:
            raise _Fault(f"{self._where}.{name}: {error}") from None


def _parse_env(data: object, where: str) -> dict[str, str]:
    if not isinstance(data, dict):
        raise _Fault(f"{where} is no object")
    env = {}
    for name, value in data.items():
        if name == "" or "=" in name or "\0" in name:
            raise _Fault(f"{where}: {name!r} is no name of an environment variable")
        if not isinstance(value, str | int | float):
            raise _Fault(f"{where}.{name} is no string, number or boolean")
        # As the API writes them: true and not True.
        env[name] = value if isinstance(value, str) else json.dumps(value)
        if "\0" in env[name]:
            raise _Fault(f"{where}.{name} has a zero byte")
    return env


def _is_report(jobs: object, students: list[Any] | None) -> bool:
    return isinstance(jobs, list) and len(jobs) == len(students or ()) and all(isinstance(job, dict) for job in jobs)


def _parse_names(data: object, where: str) -> tuple[str, ...]:
    if isinstance(data, list) and all(isinstance(name, str) for name in data):
        return tuple(data)
    raise _Fault(f"{where} is no list of names")


def _is_command(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) and "\0" not in word for word in value)


def parse_result(job_id: object, data: object) -> JobResult:
    """Read what `JobResult.to_wire` has written; ValueError if this is something else."""
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id) or not isinstance(data, dict):
        raise ValueError("it names no job")
    try:
        attempt, stages = data["attempt"], [_parse_stage_result(info) for info in data["info"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no result: {error}") from error
    if type(attempt) is not int:  # True is an int, too
        raise ValueError("it names no attempt")
    return JobResult(job_id=job_id, attempt=attempt, stages=stages)


def _parse_stage_result(info: dict[str, Any]) -> StageResult:
    # Results that an earlier release has put on disk do not say what was dropped.
    truncated, dropped = info["truncated"], info.get("dropped_bytes") or {"stdout": 0, "stderr": 0}
    return StageResult(
        started_at=datetime.fromisoformat(info["started_at"]),
        finished_at=datetime.fromisoformat(info["finished_at"]),
        runtime=info["runtime"],
        exit_code=info["exit_code"],
        reason=None if info["reason"] is None else Reason(info["reason"]),
        message=info.get("message"),
        stdout=Output(text=info["stdout"], truncated=truncated["stdout"], dropped_bytes=dropped["stdout"]),
        stderr=Output(text=info["stderr"], truncated=truncated["stderr"], dropped_bytes=dropped["stderr"]),
        memory_peak_bytes=info.get("memory_peak_bytes"),
        cpu_seconds=info.get("cpu_seconds"),
        image=info.get("image"),
        image_digest=info.get("image_digest"),
        image_ignored=info.get("image_ignored", False),
        results=info.get("results"),
        results_errors=info.get("results_errors"),
    )
