"""What Broadway does, one method a use case. The only caller of the store."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broadway_api import environment, ids, lifecycle
from broadway_api.domain import (
    Claim,
    IdempotencyKey,
    Job,
    JobState,
    JobType,
    Result,
    Run,
    RunConfig,
    RunState,
    RunSummary,
    StageLog,
    Worker,
)
from broadway_api.errors import ClaimLost, JobNotFound, StoreError
from broadway_api.events import WakeUps
from broadway_api.intake import Intake
from broadway_api.policy import Policy
from broadway_api.store.port import Store

logger = logging.getLogger(__name__)

#: Bodies larger than this are read beside the event loop, which they would hold for more than a few milliseconds.
LARGE_BODY = 32_768

#: Configs of runs that jobs are being handed out of. They never change, so they are never stale.
CACHED_CONFIGS = 64


def utc_now() -> datetime:
    """The time in whole milliseconds, as every store keeps it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Handout:
    """A claimed job with what its worker needs to run it."""

    job: Job
    config: RunConfig
    envs: tuple[Mapping[str, str], ...]  # one per stage
    roster: Sequence[Any] | None  # pre- and post-processing jobs only


class Service:
    """The use cases, over one store. Times are the API's own clock; workers' clocks decide nothing."""

    def __init__(self, store: Store, policy: Policy, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.policy = policy
        self.wake_ups = WakeUps()
        self._store = store
        self._clock = clock
        self._intake = Intake(policy)
        self._configs: OrderedDict[str, RunConfig] = OrderedDict()

    def now(self) -> datetime:
        """The time by which leases are judged."""
        return self._clock()

    # --- courses ------------------------------------------------------------------------------------------------

    async def create_run(self, body: bytes, idempotency: IdempotencyKey | None = None) -> str:
        """Keep a new run as its course wrote it; return its id. Raises NotJson, InvalidInput, IdempotencyMismatch."""
        run, jobs = await _beside_loop(len(body), self._intake.plan, body, self.now())
        run_id = await self._store.create_run(run, jobs, idempotency=idempotency)
        if run_id == run.id:
            logger.info("run %s created: %d jobs", run_id, len(jobs))
        return run_id

    async def start_run(self, run_id: str) -> RunState:
        """Queue the first phase. Raises RunNotFound, RunAlreadyStarted."""
        run = await self._store.run(run_id)
        first = lifecycle.first_phase(run.config)
        await self._store.start_run(run_id, first, self.now())
        logger.info("run %s started: %s", run_id, first)
        await self._settle_later_if_unavailable(run_id)
        return first

    async def run_summary(self, run_id: str) -> RunSummary:
        """Raises RunNotFound."""
        return await self._store.run_summary(run_id)

    async def runs(self, *, state: RunState | None, course: str | None, limit: int, after: str | None) -> list[Run]:
        """Newest first."""
        return await self._store.runs(state=state, course=course, limit=limit, after=after)

    async def run_jobs(self, run_id: str, *, states: Sequence[JobState], limit: int, after: int | None) -> list[Job]:
        """A page of the run's jobs in roster order."""
        return await self._store.run_jobs(run_id, states=states, limit=limit, after=after)

    async def job(self, job_id: str) -> tuple[Job, RunConfig, dict[str, str]]:
        """A job, its run's config, and the hostnames of its workers, by id. Raises JobNotFound."""
        job = await self._store.job(job_id)
        involved = {attempt.worker_id for attempt in job.attempts} | {job.worker_id}
        hostnames = {worker.id: worker.hostname for worker, _ in await self._store.workers() if worker.id in involved}
        return job, await self._config(job.run_id), hostnames

    async def job_log(self, job_id: str, stage: int | None) -> tuple[Job, list[StageLog]]:
        """Raises JobNotFound."""
        return await self._store.job(job_id), await self._store.job_log(job_id, stage)

    async def workers(self) -> list[tuple[Worker, list[str], bool]]:
        """Every registered worker, the jobs that it holds, and whether it was heard of lately."""
        alive_since = self.now() - self.policy.worker_lost_after
        return [(worker, jobs, worker.last_seen >= alive_since) for worker, jobs in await self._store.workers()]

    async def ping(self) -> None:
        """Raises StoreUnavailable."""
        await self._store.ping()

    # --- workers ------------------------------------------------------------------------------------------------

    async def register_worker(
        self, *, hostname: str, slots: int = 1, runtime: str = "", version: str = "", labels: Mapping[str, str]
    ) -> Worker:
        """Admit a worker and give it its id."""
        now = self.now()
        worker = Worker(
            id=ids.new_id(),
            hostname=hostname,
            slots=slots,
            runtime=runtime,
            version=version,
            labels=labels,
            registered_at=now,
            last_seen=now,
        )
        await self._store.register_worker(worker)
        logger.info("worker %s registered: %s, %d slots, %s", worker.id, hostname, slots, runtime or "runtime unknown")
        return worker

    async def heartbeat(self, worker_id: str, running: Sequence[Claim] | None) -> list[str]:
        """Renew leases; return the jobs that the worker has lost. Raises UnknownWorker."""
        lost = await self._store.heartbeat(worker_id, running, self.now(), self.policy.lease)
        if lost:
            logger.info("worker %s no longer holds %s", worker_id, ", ".join(lost))
        return lost

    async def deregister_worker(self, worker_id: str) -> list[str]:
        """Forget a worker; return the jobs that went back to the queue. Raises UnknownWorker."""
        lost = await self._store.deregister_worker(worker_id, self.now())
        self.wake_ups.jobs_queued(len(lost))
        logger.info("worker %s deregistered, %d jobs handed back", worker_id, len(lost))
        return [job.job_id for job in lost]

    async def claim(self, worker_id: str, slots: int, holding: Sequence[str], wait: float) -> list[Handout]:
        """Up to `slots` jobs for a worker; waits up to `wait` seconds for the first. Raises UnknownWorker.

        A caller whose client has gone cancels this; a job that was claimed in that moment is handed out again when
        the worker next asks.
        """
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            with self.wake_ups.place() as woken:
                jobs = await self._store.claim_jobs(worker_id, slots, self.now(), self.policy.lease, holding=holding)
                if jobs:
                    return [await self._handout(job) for job in jobs]
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or self.wake_ups.closed:
                    return []
                try:
                    await asyncio.wait_for(woken.wait(), left)
                except TimeoutError:
                    return []

    async def finish_job(self, claim: Claim, result: Result) -> Job:
        """Accept what came of a job, and move its run on. Raises ClaimLost, JobNotFound, UnknownWorker."""
        try:
            finished = await self._store.finish_job(claim, result, self.now())
        except (ClaimLost, JobNotFound):
            await self._store.worker(claim.worker_id)  # a worker that must register again is told that first
            raise
        job = finished.job
        logger.info("job %s of run %s by worker %s: %s %s", job.id, job.run_id, claim.worker_id, job.state, job.reason)
        if job.state is JobState.QUEUED:
            self.wake_ups.jobs_queued(1)
        if finished.phase_over:
            await self._settle_later_if_unavailable(job.run_id)
        return job

    # --- upkeep -------------------------------------------------------------------------------------------------

    async def settle(self, run_id: str) -> None:
        """Take every step that a run is due. Any number of callers may do so at once, and after any crash."""
        while step := lifecycle.next_step(await self._store.run_progress(run_id)):
            match step:
                case lifecycle.OpenPhase(job_type=job_type):
                    self.wake_ups.jobs_queued(await self._store.open_phase(run_id, job_type, self.now()))
                case lifecycle.Advance(leaving=leaving, to=to):
                    if await self._store.advance_run(run_id, leaving=leaving, to=to, now=self.now()):
                        logger.info("run %s: %s → %s", run_id, leaving, to)
                case lifecycle.CancelLeftovers():
                    await self._store.cancel_jobs(run_id, self.now())
                case lifecycle.Settle():
                    await self._store.settle_run(run_id)
                    return

    async def sweep(self) -> None:
        """Take back jobs of silent workers, and take the steps that a crash left undone."""
        now = self.now()
        for lost in await self._store.expire_leases(now):
            logger.warning(
                "job %s of run %s lost by worker %s: %s", lost.job_id, lost.run_id, lost.worker_id, lost.state
            )
            self.wake_ups.jobs_queued(1)
        for run_id in await self._store.unsettled_runs():
            await self.settle(run_id)
        await self._store.forget_workers(now - self.policy.worker_retention)

    async def _settle_later_if_unavailable(self, run_id: str) -> None:
        """Settle a run after a change that is durable: should the store fail now, the sweeper will do it."""
        try:
            await self.settle(run_id)
        except StoreError as error:
            logger.warning("run %s: its next step is left to the sweeper: %s", run_id, error)

    async def _handout(self, job: Job) -> Handout:
        config = await self._config(job.run_id)
        reserved = {"GRADING_RUN_ID": job.run_id, "GRADING_JOB_ID": job.id}
        return Handout(
            job=job,
            config=config,
            envs=tuple(
                environment.resolve(environment.merge(config.env, stage.env, job.student), reserved)
                for stage in config.pipeline(job.type)
            ),
            roster=None if job.type is JobType.STUDENT else await self._store.roster(job.run_id),
        )

    async def _config(self, run_id: str) -> RunConfig:
        config = self._configs.get(run_id)
        if config is None:
            config = (await self._store.run(run_id)).config
            self._configs[run_id] = config
            if len(self._configs) > CACHED_CONFIGS:
                self._configs.popitem(last=False)
        return config


async def _beside_loop(size: int, work: Callable[..., Any], *arguments: Any) -> Any:
    if size <= LARGE_BODY:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
