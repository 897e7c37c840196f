"""Everything that Broadway refuses or fails to do, as one tree that knows nothing of HTTP.

    BroadwayError
    ├── Rejected                    the caller's fault, nothing was changed
    │   ├── InvalidInput            what, where, what to do: a list of faults
    │   │   └── NotJson             with line and column
    │   ├── RunAlreadyStarted
    │   ├── RunEnded                it cannot be cancelled any more
    │   ├── RunNotEnded             it cannot be retried yet
    │   ├── NothingToRetry
    │   ├── IdempotencyMismatch     a key used again for something else
    │   ├── ClaimLost               the job is not, or no longer, this worker's
    │   ├── UnknownWorker           it must register again
    │   ├── WorkerNameTaken         another registration has the id that a worker chose
    │   ├── Forbidden               the token is good, but not for this
    │   ├── TooManyFollowers        of live output, at this process
    │   ├── DirectoryFull           too many courses and tokens
    │   └── NotFound
    │       ├── RunNotFound
    │       ├── JobNotFound
    │       ├── AssignmentNotFound
    │       ├── SecretNotFound
    │       ├── CourseNotFound
    │       └── TokenNotFound
    └── StoreError                  ours
        ├── StoreUnavailable        passing: try again
        ├── StoreInUse              another process has the file
        ├── StoreUrlInvalid
        ├── SchemaTooNew            written by a later release
        ├── SecretKeyInvalid        the key file cannot be used
        └── SecretKeyMismatch       the key does not open what the store has

An error holds its facts as attributes and builds its own message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class BroadwayError(Exception):
    """Root of all errors that Broadway raises on purpose."""


class Rejected(BroadwayError):
    """The caller asked for something that cannot be done; nothing was changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing wrong with a body: where, as a JSONPath (RFC 9535), and what."""

    path: str
    message: str


class InvalidInput(Rejected):
    """What was sent has the wrong shape or values.

    `faults` are the first ones found, `more` how many there are beyond them (0 also if nobody counted).
    """

    def __init__(self, faults: Sequence[Fault], *, what: str = "the body", more: int = 0) -> None:
        self.faults = tuple(faults)
        self.more = more
        first = f": {faults[0].path}: {faults[0].message}" if faults else ""
        super().__init__(f"{what} is not valid{first}")


class NotJson(InvalidInput):
    """The body is not JSON (RFC 8259); line and column count from 1."""

    def __init__(self, problem: str, *, line: int, column: int) -> None:
        self.problem = problem
        self.line = line
        self.column = column
        super().__init__((), what="the body")
        self.args = (f"the body is not JSON: {problem} at line {line}, column {column}",)


class RunAlreadyStarted(Rejected):
    """A run starts once."""

    def __init__(self, run_id: str, state: str) -> None:
        self.run_id = run_id
        self.state = state
        super().__init__(f"grading run {run_id} was started before, its state is {state}")


class RunEnded(Rejected):
    """A run that has ended cannot be cancelled."""

    def __init__(self, run_id: str, state: str) -> None:
        self.run_id = run_id
        self.state = state
        super().__init__(f"grading run {run_id} has ended, its state is {state}")


class RunNotEnded(Rejected):
    """Only what has ended can be tried again."""

    def __init__(self, run_id: str, state: str) -> None:
        self.run_id = run_id
        self.state = state
        super().__init__(f"grading run {run_id} has not ended, its state is {state}; wait for its end, or cancel it")


class NothingToRetry(Rejected):
    """No job of the run is of the kind that was to be tried again."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"grading run {run_id} has no such job; without a list, failed and cancelled jobs are retried")


class IdempotencyMismatch(Rejected):
    """An Idempotency-Key names one request; this is another one."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the Idempotency-Key {key!r} was used for another body; use a new key for a new request")


class ClaimLost(Rejected):
    """The job is not this worker's at this attempt: it never was, or its lease ran out."""

    def __init__(self, job_id: str, worker_id: str, attempt: int | None) -> None:
        self.job_id = job_id
        self.worker_id = worker_id
        self.attempt = attempt
        which = "" if attempt is None else f" at attempt {attempt}"
        super().__init__(f"worker {worker_id} does not hold grading job {job_id}{which}; nothing was taken")


class UnknownWorker(Rejected):
    """No worker has this id: it never registered, has deregistered, or was forgotten."""

    def __init__(self, worker_id: str | None) -> None:
        self.worker_id = worker_id
        which = f"worker id {worker_id} is unknown" if worker_id else "the worker_id header is missing"
        super().__init__(f"{which}; register (again) with POST /api/v1/worker_register")


class WorkerNameTaken(Rejected):
    """Another registration has the id that the worker chose."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"worker id '{name}' already exists")


class NotFound(Rejected):
    """There is no such thing."""


class RunNotFound(NotFound):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"there is no grading run {run_id}")


class JobNotFound(NotFound):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"there is no grading job {job_id}")


class AssignmentNotFound(NotFound):
    """The course has no configuration of this name."""

    def __init__(self, course: str, name: str) -> None:
        self.course = course
        self.name = name
        super().__init__("assignment configuration not found")


class SecretNotFound(NotFound):
    """The course has no secret of this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there is no secret {name[:100]}")


class CourseNotFound(NotFound):
    """No course has this id, or it is not the asking one's business."""

    def __init__(self, course_id: str) -> None:
        self.course_id = course_id
        super().__init__(f"there is no course {course_id[:128]}")


class TokenNotFound(NotFound):
    """No token has this id."""

    def __init__(self, token_id: str) -> None:
        self.token_id = token_id
        super().__init__(f"there is no token {token_id}")


class Forbidden(Rejected):
    """The sender is known, and may not do this."""

    def __init__(self, role: str) -> None:
        self.role = role
        super().__init__(f"a token of the role {role} may not do this")


class TooManyFollowers(Rejected):
    """Each follower of live output costs its API process memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{limit} logs are followed at this API process already, which is as many as there may be")


class DirectoryFull(Rejected):
    """Every API process holds all courses and tokens in memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"there are {limit} courses and tokens, which is as many as there may be; remove some")


class StoreError(BroadwayError):
    """The store cannot do its work."""


class StoreUnavailable(StoreError):
    """The store did not answer, or could not write; the same call may succeed later."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"the store is unavailable: {problem}")


class StoreInUse(StoreError):
    """A SQLite store belongs to one process at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} is in use by another Broadway API; stop it, or give this one its own --data-dir")


class StoreUrlInvalid(StoreError):
    """The store's URL names no store."""

    def __init__(self, url: str, problem: str) -> None:
        # Not all of it: a URL may hold a password, and what has no scheme may be anything.
        scheme = url.partition(":")[0] if ":" in url else ""
        self.scheme = scheme
        self.problem = problem
        shown = f" {scheme}:…" if scheme else ""
        super().__init__(f"the store{shown} cannot be opened: {problem}")


class SchemaTooNew(StoreError):
    """A later release wrote this store; reading on would lose what that release added."""

    def __init__(self, found: int, known: int) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"the store has schema version {found}, this release knows versions up to {known}: upgrade Broadway"
        )


class SecretKeyInvalid(StoreError):
    """The file of the keys that secrets are sealed with cannot be used."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"the keys of secrets cannot be read from {path}: {problem}")


class SecretKeyMismatch(StoreError):
    """A secret was sealed with a key that this API does not have."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"this API's keys do not open the secret {name}: give all APIs of a store the same --secret-key-file, the"
            " one that the secrets were set with (or delete the secrets and set them anew)"
        )
