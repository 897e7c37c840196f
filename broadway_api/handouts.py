"""From a claimed job to what its worker needs to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broadway_api import environment
from broadway_api.all_jobs import all_jobs
from broadway_api.domain import Job, JobType, RunConfig
from broadway_api.errors import SecretKeyMismatch
from broadway_api.known_runs import KnownRuns
from broadway_api.store.port import Store
from broadway_api.vault import Vault


@dataclass(frozen=True, kw_only=True, slots=True)
class Handout:
    """A claimed job with what its worker needs to run it."""

    job: Job
    config: RunConfig
    envs: tuple[Mapping[str, str], ...] = field(repr=False)  # one per stage
    secrets: tuple[Sequence[str], ...]  # one per stage: the names in its env whose values must not be told
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
        config = await self._known.config(job.run_id)
        names = {name for stage in config.pipeline(job.type) if stage.secrets for name in stage.secrets.values()}
        return await self._with_secrets(job, config, await self._secrets(job.run_id, names) if names else {})

    async def _secrets(self, run_id: str, names: set[str]) -> Mapping[str, str]:
        try:
            secrets = await self._vault.values(await self._known.course(run_id), names)
        except SecretKeyMismatch as error:
            raise SecretsUnavailable(str(error)) from error
        if missing := ", ".join(sorted(names - secrets.keys())):
            raise SecretsUnavailable(f"secrets were deleted since the run was created: {missing}; set them, and retry")
        return secrets

    async def _with_secrets(self, job: Job, config: RunConfig, secrets: Mapping[str, str]) -> Handout:
        reserved = {"GRADING_RUN_ID": job.run_id, "GRADING_JOB_ID": job.id}
        roster: Sequence[Any] | None = None
        ended: list[Job] | None = None
        if job.type is JobType.PRE_PROCESSING:
            roster = await self._store.roster(job.run_id)
        elif job.type is JobType.POST_PROCESSING:
            ended = [other async for other in all_jobs(self._store, job.run_id) if other.type is JobType.STUDENT]
            roster = [student.student for student in ended]
        pipeline = config.pipeline(job.type)
        return Handout(
            job=job,
            config=config,
            envs=tuple(
                environment.resolve(environment.merge(config.env, stage.env, job.student), reserved, secrets)
                for stage in pipeline
            ),
            secrets=tuple(
                sorted(stage.secrets.keys() - (job.student or {}).keys() - reserved.keys()) if stage.secrets else ()
                for stage in pipeline
            ),
            roster=roster,
            ended=ended,
        )
