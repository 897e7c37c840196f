"""What courses do in the course protocol: keep configurations of assignments, and make runs from them.

A run has its configuration to itself from its start, and is then one like any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broadway_api import environment
from broadway_api.all_jobs import all_jobs
from broadway_api.course_protocol import configs, words
from broadway_api.domain import Job, JobState, JobType, Run, RunConfig, StageLog
from broadway_api.errors import InvalidInput, JobNotFound
from broadway_api.intake import Intake
from broadway_api.policy import Policy
from broadway_api.runs import Runs
from broadway_api.store.port import Store
from broadway_api.tenants import Principal
from broadway_api.waiting import Waiting

logger = logging.getLogger(__name__)

#: Of a roster: a longer one is read beside the event loop.
SHORT_ROSTER = 200

#: Seconds between two looks at a job that runs and is followed.
LOOK_EVERY = 0.5

_STARTED = words.STREAM[JobState.RUNNING]


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeRun:
    """A run with all its jobs, as lists have them."""

    run: Run
    jobs: Sequence[Job]

    def of_type(self, job_type: JobType) -> list[Job]:
        """Its jobs of a type, in roster order."""
        return [job for job in self.jobs if job.type is job_type]


class Assignments:
    """Configurations, and the runs made from them."""

    def __init__(
        self, store: Store, runs: Runs, waiting: Waiting, policy: Policy, *, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._runs = runs
        self._waiting = waiting
        self._intake = Intake(policy)
        self._now = now

    async def put(self, course: str, name: str, config: Mapping[str, Any]) -> None:
        """Keep a configuration that has passed its schema, in place of the one there was."""
        await self._store.put_assignment(course, name, config)
        logger.info("assignment %s of course %s configured", name, course)

    async def get(self, course: str, name: str) -> dict[str, Any]:
        """The configuration as it was put. Raises AssignmentNotFound."""
        return await self._store.assignment(course, name)

    async def grade(self, course: str, name: str, request: Mapping[str, Any], *, by: Principal) -> str:
        """Make a run of a request that has passed its schema, and start it; return its id.

        Raises AssignmentNotFound, InvalidInput.
        """
        config = await self._store.assignment(course, name)
        if len(request["students_env"]) <= SHORT_ROSTER:
            run, jobs = self._plan(config, request, course)
        else:
            run, jobs = await asyncio.to_thread(self._plan, config, request, course)
        await self._runs.keep(run, jobs)
        await self._runs.start(run.id, by=by)
        return run.id

    def _plan(self, config: Mapping[str, Any], request: Mapping[str, Any], course: str) -> tuple[Run, list[Job]]:
        data = configs.run_config(config, request)
        try:
            return self._intake.plan_value(data, self._now(), course=course)
        except InvalidInput as error:
            raise configs.in_their_words(error) from error

    async def whole_run(self, run_id: str, *, by: Principal) -> WholeRun:
        """Raises RunNotFound."""
        summary = await self._runs.summary(run_id, by=by)
        return WholeRun(run=summary.run, jobs=[job async for job in all_jobs(self._store, run_id)])

    async def envs(self, run_id: str, *, by: Principal) -> dict[JobType, dict[str, dict[str, list[str]]]]:
        """Of each job each variable's values over its stages. Raises RunNotFound."""
        whole = await self.whole_run(run_id, by=by)
        return await asyncio.to_thread(_envs, whole)

    async def log(self, job_id: str, *, by: Principal) -> list[StageLog]:
        """What an ended job printed. Raises JobNotFound, for one that has not ended too."""
        job, logs = await self._runs.job_log(job_id, None, by=by)
        if not job.state.ended:
            raise JobNotFound(job_id)
        return logs

    async def queue_length(self, course: str) -> int:
        """How many jobs of the course are queued."""
        queue = (await self._waiting.by_course()).get(course)
        return 0 if queue is None else queue.depth

    async def position(self, job_id: str, *, by: Principal) -> int:
        """How many jobs stand before a queued one. Raises JobNotFound, for one that is not queued too."""
        job, _ = await self._runs.job_log(job_id, None, by=by)
        position, _ = await self._waiting.place(job)
        if position is None:
            raise JobNotFound(job_id)
        return position

    async def follow(self, job_id: str, *, by: Principal) -> AsyncGenerator[tuple[str, str | int], None]:
        """A job's states and, while it is queued, its positions: as they are now, and whenever they have changed.

        Ends with the job. That it was started is told even if nobody saw it. Raises JobNotFound before the first.
        """
        job, _ = await self._runs.job_log(job_id, None, by=by)
        told = ""
        while True:
            word = words.STREAM[job.state]
            if job.state.ended and job.attempt and told != _STARTED:
                yield "state", _STARTED
            if word != told:
                yield "state", word
                told = word
            if job.state.ended:
                return
            if job.state is JobState.QUEUED:
                async with aclosing(self._waiting.follow(job_id)) as positions:
                    async for position in positions:
                        yield "position", position
            else:
                await asyncio.sleep(LOOK_EVERY)
            job = await self._store.job(job_id)


def _envs(whole: WholeRun) -> dict[JobType, dict[str, dict[str, list[str]]]]:
    config = whole.run.config
    return {
        job_type: {job.id: _values_over_stages(config, job) for job in whole.of_type(job_type)} for job_type in JobType
    }


def _values_over_stages(config: RunConfig, job: Job) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    reserved = {"GRADING_RUN_ID": job.run_id, "GRADING_JOB_ID": job.id}
    for stage in config.pipeline(job.type):
        hidden = dict.fromkeys(stage.secrets.values(), "***")
        merged = environment.merge(config.env, stage.env, job.student)
        for name, value in environment.resolve(merged, reserved, hidden).items():
            values.setdefault(name, []).append(value)
    return values
