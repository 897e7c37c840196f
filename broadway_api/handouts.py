"""From a claimed job to what its worker needs to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broadway_api.all_jobs import all_jobs
from broadway_api.domain import Job, JobType
from broadway_api.errors import SecretKeyMismatch
from broadway_api.job_plans import JobPlan
from broadway_api.known_runs import KnownRuns
from broadway_api.store.port import Store
from broadway_api.vault import Vault


@dataclass(frozen=True, kw_only=True, slots=True)
class Handout:
    """A claimed job with what its worker needs to run it."""

    job: Job
    plan: JobPlan
    envs: Sequence[Mapping[str, str]] = field(repr=False)  # one per stage
    secrets: Sequence[Sequence[str]]  # one per stage: the names in its env whose values must not be told
    roster: Sequence[Any] | None  # pre- and post-processing jobs only
    ended: Sequence[Job] | None  # the students' jobs, in roster order; post-processing jobs only


class SecretsUnavailable(Exception):
    """A job's secrets cannot be had any more, and why: waiting brings nothing."""


class Handouts:
    """Fills in what a job's run, its roster entry and its course's secrets have."""

    def __init__(self, store: Store, known: KnownRuns, vault: Vault) -> None:
        self._store = store
        self._known = known
        self._vault = vault

    async def of(self, job: Job) -> Handout:
        """Raises SecretsUnavailable."""
        plan = await self._known.plan(job.run_id, job.type)
        secrets = await self._secrets(job.run_id, plan.secret_names) if plan.secret_names else {}
        reserved = {"GRADING_RUN_ID": job.run_id, "GRADING_JOB_ID": job.id}
        roster: Sequence[Any] | None = None
        ended: list[Job] | None = None
        if job.type is JobType.PRE_PROCESSING:
            roster = await self._store.roster(job.run_id)
        elif job.type is JobType.POST_PROCESSING:
            ended = [other async for other in all_jobs(self._store, job.run_id) if other.type is JobType.STUDENT]
            roster = [student.student for student in ended]
        return Handout(
            job=job,
            plan=plan,
            envs=[environment.of(job.student, reserved, secrets) for environment in plan.environments],
            secrets=[
                sorted(variables - (job.student or {}).keys() - reserved.keys()) if variables else ()
                for variables in plan.secret_variables
            ],
            roster=roster,
            ended=ended,
        )

    async def _secrets(self, run_id: str, names: frozenset[str]) -> Mapping[str, str]:
        try:
            secrets = await self._vault.values(await self._known.course(run_id), names)
        except SecretKeyMismatch as error:
            raise SecretsUnavailable(str(error)) from error
        if missing := ", ".join(sorted(names - secrets.keys())):
            raise SecretsUnavailable(f"secrets were deleted since the run was created: {missing}; set them, and retry")
        return secrets
