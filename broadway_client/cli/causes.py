"""Many failures as few causes: those that say the same but for names and numbers are one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from broadway_client.models import Job, JobDetail, JobLog, Reason

#: Lines at the end of an output that are looked through for one that says what went wrong.
_LOOKED_AT = 60
#: Characters of a line that are looked at: a student's program may print a line of a megabyte.
_MAX_LINE = 400

_TELLING = re.compile(
    r"error|exception|fatal|fail|panic|cannot|can't|denied|not found|no such|undefined|killed|fault|abort|assert",
    re.IGNORECASE,
)

#: What differs from student to student where the cause is one, and what stands for it.
_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<address>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?Z?"), "<time>"),
    (re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|‘[^’]*’|“[^”]*”"), "'…'"),
    (re.compile(r"\b[0-9a-f]*\d[0-9a-f]*[a-f][0-9a-f]{6,}\b|\b[0-9a-f]{12,}\b"), "<id>"),
    (re.compile(r"(?<![A-Za-z])[-+]?\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?"), "N"),
)

#: Where what the program said last is by chance, and the limit is the cause.
_LIMITS = (Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.OUTPUT_LIMIT, Reason.DISK_LIMIT, Reason.WORKER_LOST)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One job that did not succeed, and what it said of that. `stage` counts from 0; None if no stage ran."""

    job: Job
    stage: int | None = None
    image: str = ""
    exit_code: int | None = None
    said: str = ""

    @property
    def reason(self) -> str:
        """Why, in the API's word."""
        return str(self.job.reason or self.job.state)


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Failures that are alike, the first of them for an example."""

    failures: tuple[Failure, ...]
    pattern: str

    @property
    def example(self) -> Failure:
        """One of them."""
        return self.failures[0]


def failure(job: JobDetail, log: JobLog | None) -> Failure:
    """What is known of a job that failed; `log` has what its last stage printed."""
    if not job.info:
        said = next((one.reason for one in reversed(job.attempts) if one.reason), "")
        return Failure(job=job, said=f"last {said}" if said else "")
    stage, info = len(job.info) - 1, job.info[-1]
    code = info.get("exit_code")
    message = str(info.get("message") or "")
    said = _last_words(log, stage)
    # A stage that ended well and failed all the same left no results, and the grader says so; else its own words count.
    is_graders = bool(message) and (code in (0, None) or not said)
    pipeline = job.pipeline[stage] if stage < len(job.pipeline) else {}
    return Failure(
        job=job,
        stage=stage,
        image=str(pipeline.get("image") or info.get("image") or ""),
        exit_code=code if isinstance(code, int) else None,
        said=message if is_graders else said,
    )


def _last_words(log: JobLog | None, stage: int) -> str:
    """The line that tells most of what a stage printed last: on stderr, else on stdout."""
    for one in log.stages if log is not None else ():
        if one.stage != stage:
            continue
        for text in (one.stderr, one.stdout):
            lines = [line.strip()[:_MAX_LINE] for line in text[-100_000:].splitlines()[-_LOOKED_AT:] if line.strip()]
            if lines:
                return next((line for line in reversed(lines) if _TELLING.search(line)), lines[-1])
    return ""


def causes(failures: Iterable[Failure]) -> list[Cause]:
    """The failures by cause, the most frequent one first."""
    alike: dict[tuple[object, ...], list[Failure]] = {}
    for one in failures:
        said = "" if one.job.reason in _LIMITS else pattern(one.said, one.job.student)
        key = (one.job.type, one.reason, one.stage, one.exit_code if not said else None, said)
        alike.setdefault(key, []).append(one)
    found = [Cause(failures=tuple(group), pattern=str(key[-1])) for key, group in alike.items()]
    return sorted(found, key=lambda cause: -len(cause.failures))


def pattern(said: str, student: Mapping[str, Any] | None) -> str:
    """What is the same for all who failed of one cause: without the student's own values, numbers and quoted text."""
    for name, value in (student or {}).items():
        text = str(value).strip()
        if len(text) >= 3 and not text.isdecimal():
            said = said.replace(text, f"<{name}>")
    for varying, stand_in in _VARYING:
        said = varying.sub(stand_in, said)
    return " ".join(said.split())
