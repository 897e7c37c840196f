"""What courses do with their runs, one method a use case."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from broadway_api import lifecycle
from broadway_api.access import Access
from broadway_api.all_jobs import all_jobs
from broadway_api.domain import (
    Delivery,
    IdempotencyKey,
    Job,
    JobState,
    JobType,
    Run,
    RunConfig,
    RunState,
    RunSummary,
    StageLog,
)
from broadway_api.errors import (
    Forbidden,
    InvalidInput,
    JobNotFound,
    NothingToRetry,
    RunEnded,
    RunNotEnded,
    RunNotFound,
    StoreUnavailable,
)
from broadway_api.events import WakeUps
from broadway_api.forecast import Forecast
from broadway_api.intake import Intake
from broadway_api.known_runs import KnownRuns
from broadway_api.policy import Policy
from broadway_api.settling import Settler
from broadway_api.store.port import Store
from broadway_api.tenants import Principal, Role
from broadway_api.validation import MAX_FAULTS
from broadway_api.vault import Vault
from broadway_api.waiting import Waiting

logger = logging.getLogger(__name__)

#: Bodies larger than this are read beside the event loop, which they would hold for more than a few milliseconds.
LARGE_BODY = 32_768

#: Seconds between two looks at a run that somebody follows, and after which a silent stream shows that it lives.
LOOK_EVERY = 0.5
KEEP_ALIVE = 15.0


class Runs:
    """Runs: made, moved on, tried again, read, followed.

    `by` is whoever asks. What belongs to a course that they do not see is not there, as far as they are told.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        *,
        known: KnownRuns,
        vault: Vault,
        settler: Settler,
        wake_ups: WakeUps,
        access: Access,
        waiting: Waiting,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._policy = policy
        self._known = known
        self._vault = vault
        self._settler = settler
        self._wake_ups = wake_ups
        self._access = access
        self._waiting = waiting
        self._now = now
        self._intake = Intake(policy)
        self._forecast = Forecast(store)

    async def create(
        self,
        body: bytes,
        idempotency: IdempotencyKey | None = None,
        *,
        course: str | None = None,
        priority: int | None = None,
        by: Principal,
    ) -> str:
        """Keep a new run as its course wrote it; return its id.

        It belongs to `course`, or if none is named to that of the one who asks, or else to the default course. The
        `priority` is the operator's to say. Raises NotJson, InvalidInput, IdempotencyMismatch, CourseNotFound,
        Forbidden.
        """
        if priority is not None and by.role is not Role.OPERATOR:
            raise Forbidden(by.role)
        owner = await self._access.course_of(by, course)
        plan = partial(self._intake.plan, course=owner, priority=priority)
        run, jobs = await _beside_loop(len(body), plan, body, self._now())
        return await self.keep(run, jobs, idempotency)

    async def keep(self, run: Run, jobs: Sequence[Job], idempotency: IdempotencyKey | None = None) -> str:
        """Keep a run that was planned. Raises InvalidInput, IdempotencyMismatch."""
        if faults := await self._vault.missing(run.course, run.config):
            raise InvalidInput(faults[:MAX_FAULTS], more=len(faults[MAX_FAULTS:]))
        run_id = await self._store.create_run(run, jobs, idempotency=idempotency)
        if run_id == run.id:
            logger.info("run %s created: %d jobs", run_id, len(jobs))
        return run_id

    async def start(self, run_id: str, *, by: Principal) -> RunState:
        """Queue the first phase. Raises RunNotFound, RunAlreadyStarted."""
        run = await self._run(run_id, by)
        first = lifecycle.first_phase(run.config)
        await self._store.start_run(run_id, first, self._now())
        logger.info("run %s started: %s", run_id, first)
        await self._settler.settle_or_leave(run_id)
        return first

    async def cancel(self, run_id: str, *, by: Principal) -> RunState:
        """End a run now: its queued jobs at once, its running ones by the next heartbeat of their workers.

        A run that was cancelled before stays so. Raises RunNotFound, RunEnded.
        """
        while (run := await self._run(run_id, by)).state is not RunState.CANCELLED:
            if run.state.ended:
                raise RunEnded(run_id, run.state)
            await self._store.advance_run(run_id, leaving=run.state, to=RunState.CANCELLED, now=self._now())
        logger.info("run %s cancelled", run_id)
        await self._settler.settle_or_leave(run_id)
        return run.state

    async def retry(self, run_id: str, students: Sequence[Mapping[str, Any]] | None, *, by: Principal) -> int:
        """Try jobs of an ended run again; return how many.

        `students`: those whose roster entry has all the names and values of one of these, however they ended; None:
        every job that failed or was cancelled. Post-processing follows once more. Raises RunNotFound, RunNotEnded,
        NothingToRetry.
        """
        run = await self._run(run_id, by)
        if not run.state.ended:
            raise RunNotEnded(run_id, run.state)
        if not await self._store.is_settled(run_id):
            await self._settler.settle(run_id)
        jobs = [job async for job in all_jobs(self._store, run_id)]
        chosen = [job for job in jobs if _is_to_retry(job, students)]
        if not chosen:
            raise NothingToRetry(run_id)
        chosen += [job for job in jobs if job.type is JobType.POST_PROCESSING and job not in chosen]
        to, ids = lifecycle.phase_of(chosen), [job.id for job in chosen]
        if not await self._store.retry_jobs(run_id, ids, self._policy.job_max_attempts, leaving=run.state, to=to):
            raise RunNotEnded(run_id, (await self._store.run(run_id)).state)
        logger.info("run %s: %d jobs are tried again", run_id, len(chosen))
        await self._settler.settle_or_leave(run_id)
        return len(chosen)

    async def summary(self, run_id: str, *, by: Principal) -> RunSummary:
        """Raises RunNotFound."""
        summary = await self._store.run_summary(run_id)
        if not by.sees(summary.run.course):
            raise RunNotFound(run_id)
        return await self._forecast.with_time_left(await self._waiting.with_stranded(summary))

    async def newest(
        self, *, state: RunState | None, course: str | None, limit: int, after: str | None, by: Principal
    ) -> list[Run]:
        """A page of runs, newest first."""
        wanted = course or by.course
        if wanted is not None and not by.sees(wanted):
            return []
        return await self._store.runs(state=state, course=wanted, limit=limit, after=after)

    async def jobs(
        self, run_id: str, *, states: Sequence[JobState], limit: int, after: int | None, by: Principal
    ) -> list[Job]:
        """A page of the run's jobs in roster order. Raises RunNotFound."""
        if not by.sees(await self._known.course(run_id)):
            raise RunNotFound(run_id)
        return await self._store.run_jobs(run_id, states=states, limit=limit, after=after)

    async def job(self, job_id: str, *, by: Principal) -> tuple[Job, RunConfig, dict[str, str]]:
        """A job, its run's config, and the hostnames of its workers, by id. Raises JobNotFound."""
        job = await self._job(job_id, by)
        involved = {attempt.worker_id for attempt in job.attempts} | {job.worker_id}
        hostnames = {worker.id: worker.hostname for worker, _ in await self._store.workers() if worker.id in involved}
        return job, await self._known.config(job.run_id), hostnames

    async def job_log(self, job_id: str, stage: int | None, *, by: Principal) -> tuple[Job, list[StageLog]]:
        """Raises JobNotFound."""
        return await self._job(job_id, by), await self._store.job_log(job_id, stage)

    async def deliveries(self, run_id: str, *, by: Principal) -> list[Delivery]:
        """What a webhook is told of the run, the oldest first. Raises RunNotFound."""
        await self._run(run_id, by)
        return await self._store.run_deliveries(run_id)

    async def _run(self, run_id: str, by: Principal) -> Run:
        run = await self._store.run(run_id)
        if not by.sees(run.course):
            raise RunNotFound(run_id)
        return run

    async def _job(self, job_id: str, by: Principal) -> Job:
        job = await self._store.job(job_id)
        if not by.sees(await self._known.course(job.run_id)):
            raise JobNotFound(job_id)
        return job

    async def events(
        self, run_id: str, last_seen: str | None, *, by: Principal
    ) -> AsyncGenerator[tuple[str, RunSummary] | None, None]:
        """The run as it is whenever that has changed, with an id for each; None now and then, when nothing has.

        Begins with the present unless that is the one of the id `last_seen`, and ends with the run, or when the server
        stops or cannot ask the store any more: whoever follows comes back. Raises RunNotFound and StoreUnavailable
        before the first.
        """
        silent, asked = 0.0, False
        while not self._wake_ups.closed:
            try:
                summary = await self.summary(run_id, by=by)
            except (RunNotFound, StoreUnavailable):
                if asked:
                    break
                raise
            asked, version = True, _version(summary)
            if version != last_seen:
                yield version, summary
                last_seen, silent = version, 0.0
            elif silent >= KEEP_ALIVE:
                yield None
                silent = 0.0
            if summary.run.state.ended and not any(
                number for state, number in summary.counts.items() if not state.ended
            ):
                return
            await asyncio.sleep(LOOK_EVERY)
            silent += LOOK_EVERY
        yield None  # to have told nothing at all would say that the run has ended


def _is_to_retry(job: Job, students: Sequence[Mapping[str, Any]] | None) -> bool:
    if students is None:
        return job.state in (JobState.FAILED, JobState.CANCELLED)
    return job.student is not None and any(wanted.items() <= job.student.items() for wanted in students)


def _version(summary: RunSummary) -> str:
    """Names what a summary says: the same again, after a restart or from another process, has the same name."""
    text = repr((summary.run.state, sorted(summary.counts.items()), sorted(summary.reasons.items()), summary.stranded))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def _beside_loop(size: int, work: Callable[..., Any], *arguments: Any) -> Any:
    if size <= LARGE_BODY:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
