"""What the grader works with: jobs and stages as it was given them, and what became of them. No I/O."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

#: Seconds that a stage may run which says nothing else (the specification's default).
DEFAULT_TIMEOUT = 30.0

_MULTIPLES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)


class Reason(enum.StrEnum):
    """Whom or what to blame for a stage that did not succeed."""

    STAGE_FAILED = "stage_failed"  # it ended by itself with an exit code other than 0, or could not be started
    TIMEOUT = "timeout"  # it ran longer than it may
    OUT_OF_MEMORY = "out_of_memory"  # it wanted more memory than it may have
    OUTPUT_LIMIT = "output_limit"  # it wrote more than is kept, where that is a failure
    DISK_LIMIT = "disk_limit"  # it filled its share of the disk
    IMAGE_UNAVAILABLE = "image_unavailable"  # its image is not here and could not be pulled
    RUNTIME_ERROR = "runtime_error"  # the grader or its engine failed, not the stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One container of a job. None: left to the image or to the grader's configuration."""

    image: str
    env: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    secrets: Sequence[str] = ()  # names in `env` whose values must not be told
    entry_point: Sequence[str] | None = None
    enable_networking: bool = False
    host_name: str | None = None
    timeout: float = DEFAULT_TIMEOUT  # seconds, counted from the start of the container
    memory: int | None = None  # bytes
    cpus: float | None = None
    pids: int | None = None
    cpuset_cpus: str | None = None  # which CPUs: "0-2,5"
    logs: bool = True
    user: str | None = None
    working_dir: str | None = None
    privileged: bool = False
    results: bool = False  # it writes /job/results.json, which is read when it has ended
    read_only: bool | None = None  # the root file system; /job and /tmp never are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A grading job as it was claimed."""

    job_id: str
    attempt: int
    stages: Sequence[Stage]
    students: Sequence[Any] | None = None  # the roster; only pre- and post-processing jobs have it
    student_jobs: Sequence[Mapping[str, Any]] | None = None  # how the students' ended; only post-processing jobs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """What is kept of one of a stage's two streams."""

    text: str = ""
    truncated: bool = False
    dropped_bytes: int = 0  # that were printed and not kept

    def halved(self) -> Output:
        """Its first half, marked as truncated."""
        kept, dropped = self.text[: len(self.text) // 2], self.text[len(self.text) // 2 :]
        # Text that was no UTF-8 is counted as it stands here.
        count = self.dropped_bytes + len(dropped.encode(errors="replace"))
        return Output(text=kept, truncated=self.truncated or bool(self.text), dropped_bytes=count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageResult:
    """What became of one stage; None: not known, or not applicable to the runtime."""

    started_at: datetime
    finished_at: datetime
    runtime: str
    exit_code: int | None = None  # None: it never ended by itself
    reason: Reason | None = None  # None: it succeeded
    message: str | None = None
    stdout: Output = Output()
    stderr: Output = Output()
    memory_peak_bytes: int | None = None
    cpu_seconds: float | None = None
    image: str | None = None
    image_digest: str | None = None
    image_ignored: bool = False
    results: Mapping[str, Any] | None = None  # normalised; only of a stage that declares them
    results_errors: Sequence[Mapping[str, str]] | None = None  # what is wrong with them instead

    def to_wire(self) -> dict[str, Any]:
        """The stage's info object of the wire contract; fields that do not apply are left out."""
        optional = {
            "message": self.message,
            "memory_peak_bytes": self.memory_peak_bytes,
            "cpu_seconds": self.cpu_seconds,
            "image": self.image,
            "image_digest": self.image_digest,
            "image_ignored": self.image_ignored or None,
            "results": self.results,
            "results_errors": self.results_errors,
        }
        return {
            "exit_code": self.exit_code,
            "reason": self.reason,
            "started_at": wire_time(self.started_at),
            "finished_at": wire_time(self.finished_at),
            "stdout": self.stdout.text,
            "stderr": self.stderr.text,
            "truncated": {"stdout": self.stdout.truncated, "stderr": self.stderr.truncated},
            "dropped_bytes": {"stdout": self.stdout.dropped_bytes, "stderr": self.stderr.dropped_bytes},
            "runtime": self.runtime,
        } | {name: value for name, value in optional.items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobResult:
    """What became of a job: one entry per stage that was started, the last of them with the reason if it failed."""

    job_id: str
    attempt: int
    stages: Sequence[StageResult]

    @property
    def reason(self) -> Reason | None:
        """Why the job failed; None if it succeeded."""
        return self.stages[-1].reason if self.stages else Reason.RUNTIME_ERROR

    def to_wire(self) -> dict[str, Any]:
        """The body of the result call."""
        return {
            "success": self.reason is None,
            "info": [stage.to_wire() for stage in self.stages],
            "attempt": self.attempt,
            "reason": self.reason,
        }

    def has_logs(self) -> bool:
        """Whether there is any output left to shorten."""
        return self.log_size() > 0

    def log_size(self) -> int:
        """Characters of output, of all stages together."""
        return sum(len(stage.stdout.text) + len(stage.stderr.text) for stage in self.stages)

    def with_halved_logs(self) -> JobResult:
        """The same result with half of each output, for an API that refused it as too large."""
        return dataclasses.replace(
            self,
            stages=[
                dataclasses.replace(stage, stdout=stage.stdout.halved(), stderr=stage.stderr.halved())
                for stage in self.stages
            ],
        )


def failed_result(job_id: str, attempt: int, *, reason: Reason, message: str, runtime: str, now: datetime) -> JobResult:
    """The result of a job that failed outside of any stage."""
    stage = StageResult(started_at=now, finished_at=now, runtime=runtime, reason=reason, message=message)
    return JobResult(job_id=job_id, attempt=attempt, stages=[stage])


def wire_time(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and Z, as the wire contract has it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_bytes(size: int | str) -> int:
    """Read a size such as 1048576, "512m" or "1.5g", in multiples of 1024 as Docker reads them; else ValueError."""
    match = _SIZE.fullmatch(str(size).strip())
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{size!r} is no size such as 1048576 or '512m'")
    return int(float(match[1]) * _MULTIPLES[match[2].lower()])
