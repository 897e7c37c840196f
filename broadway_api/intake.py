"""From the body of a request to a run with its jobs. Pure, and for a long roster slow: callers leave the event loop."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from broadway_api import bounds, capabilities, environment, ids, json_body, runconfig
from broadway_api.domain import DEFAULT_COURSE, Env, IdempotencyKey, Job, JobType, Run
from broadway_api.errors import Fault
from broadway_api.policy import Policy
from broadway_api.validation import RunConfigValidator, refuse_if_any

#: The largest run config without its students, in characters. MongoDB keeps it in no more than 16 MiB, and a character
#: can take three bytes.
MAX_RECORD = 4_000_000

#: Of the jobs of a run that is small.
EXPRESS_PRIORITY = 1

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Intake:
    """Reads run configs as a cluster's policy has them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._validator = RunConfigValidator(policy)

    def plan(
        self, body: bytes, now: datetime, *, course: str = DEFAULT_COURSE, priority: int | None = None
    ) -> tuple[Run, list[Job]]:
        """A new run and its jobs, `waiting`, in the order of their `seq`. Raises NotJson, InvalidInput.

        Without a `priority` it is EXPRESS_PRIORITY for a small run, else 0.
        """
        return self.plan_value(json_body.parse(body), now, course=course, priority=priority)

    def plan_value(
        self, data: Any, now: datetime, *, course: str = DEFAULT_COURSE, priority: int | None = None
    ) -> tuple[Run, list[Job]]:
        """The same of a body that has been parsed. Raises InvalidInput."""
        self._validator.check(data)
        config = runconfig.from_json(data)
        roster = data["students"]
        refuse_if_any(bounds.stage_faults(config, self._policy))
        refuse_if_any(environment.template_faults(config, roster))
        refuse_if_any(bounds.size_faults(config, roster, self._policy))
        if len(json.dumps(runconfig.to_json(config), ensure_ascii=False)) > MAX_RECORD:
            refuse_if_any(iter([Fault(path="$", message=f"more than {MAX_RECORD} characters without its students")]))
        if priority is None:
            number = len(roster) + bool(config.pre_processing_pipeline) + bool(config.post_processing_pipeline)
            priority = EXPRESS_PRIORITY if number <= self._policy.express_max_jobs else 0
        run = Run(id=ids.new_id(), course=course, priority=priority, config=config, created_at=now)
        jobs = self._jobs(run, JobType.STUDENT, 1, roster)
        if config.pre_processing_pipeline:
            jobs = [*self._jobs(run, JobType.PRE_PROCESSING, 0, [None]), *jobs]
        if config.post_processing_pipeline:
            jobs += self._jobs(run, JobType.POST_PROCESSING, len(roster) + 1, [None])
        return run, jobs

    def _jobs(self, run: Run, job_type: JobType, first: int, students: Iterable[Env | None]) -> list[Job]:
        requirement = capabilities.requirement_of(run.config, job_type)
        return [
            Job(
                id=ids.new_id(),
                run_id=run.id,
                type=job_type,
                seq=seq,
                student=student,
                priority=run.priority,
                requirement=requirement,
                attempt_limit=self._policy.job_max_attempts,
            )
            for seq, student in enumerate(students, start=first)
        ]


def idempotency_key(key: str | None, body: bytes, *, priority: int | None = None) -> IdempotencyKey | None:
    """The value of an `Idempotency-Key` header with the digest of what it came with. Raises InvalidInput."""
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        refuse_if_any(iter([Fault(path="Idempotency-Key", message="must be 1 to 255 visible ASCII characters")]))
    asked = b"" if priority is None else b"?priority=%d" % priority
    return IdempotencyKey(key=key, fingerprint=hashlib.sha256(body + asked).hexdigest())
