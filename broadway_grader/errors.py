"""The grader's errors, one tree:

GraderError
├── SetupError                  the grader cannot start here; one line says why
├── UnusableJob                 a job that cannot be run as it was sent (reported, never retried here)
├── InvalidResults              a stage's /job/results.json is missing or not what it should be
└── ApiError                    the API, or the way to it, refused a call
    ├── RetryableError          worth trying again
    │   ├── Unreachable         no answer
    │   │   └── CutOff          … although the connection had been made
    │   ├── ServerBusy          5xx, 429, 408
    │   └── UnusableAnswer      not what the wire contract allows
    ├── Unauthorized            the cluster token is refused
    ├── UnknownWorker           the worker id is refused: register again
    ├── ClaimLost               the job is no longer this worker's
    ├── TooLarge                the body is over the API's limit
    └── Refused                 any other 4xx
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class GraderError(Exception):
    """Any fault that the grader knows by name."""


class SetupError(GraderError):
    """The grader cannot start with this configuration or on this machine; its message is one line for people."""


class UnusableJob(GraderError):
    """A job that cannot be run as it was sent."""

    def __init__(self, job_id: str, attempt: int, problem: str) -> None:
        super().__init__(f"job {job_id} cannot be run: {problem}")
        self.job_id = job_id
        self.attempt = attempt
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with a JSON value, and where: a JSONPath."""

    path: str
    message: str


class InvalidResults(GraderError):
    """Results that cannot be used: the first faults, and how many `more` there are."""

    def __init__(self, faults: Sequence[Fault], more: int = 0) -> None:
        others = len(faults) - 1 + more
        first = faults[0].message if faults[0].path == "$" else f"{faults[0].path}: {faults[0].message}"
        super().__init__(first + (f" (and {others} more)" if others else ""))
        self.faults = faults
        self.more = more


class ApiError(GraderError):
    """A call that the API did not answer with success."""


class RetryableError(ApiError):
    """A fault that passes; `retry_after` is the least number of seconds that the API asked to be left alone for."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(RetryableError):
    """No answer: refused, cut off or timed out. Whether the request was carried out is unknown."""


class CutOff(Unreachable):
    """The connection broke after it was made: a crash, or a server that closed it rather than read the body."""


class ServerBusy(RetryableError):
    """The API answered that it cannot answer now."""


class UnusableAnswer(RetryableError):
    """An answer that the wire contract does not allow."""


class Unauthorized(ApiError):
    """The cluster token is refused."""

    def __init__(self) -> None:
        super().__init__("the API refuses the cluster token")


class UnknownWorker(ApiError):
    """The API does not know this worker id (any more)."""

    def __init__(self, worker_id: str) -> None:
        super().__init__(f"the API does not know worker {worker_id}")
        self.worker_id = worker_id


class ClaimLost(ApiError):
    """The job is not this worker's at this attempt."""

    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__(f"job {job_id} is no longer this worker's at attempt {attempt}")
        self.job_id = job_id
        self.attempt = attempt


class TooLarge(ApiError):
    """The request body is over the API's limit."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the API refuses a body of {size} bytes as too large")
        self.size = size


class Refused(ApiError):
    """The API refuses the request, and would again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the API answers {status}: {message}")
        self.status = status
