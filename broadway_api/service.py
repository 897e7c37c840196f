"""What Broadway does, one method a use case. The only caller of the store."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broadway_api import environment, ids, lifecycle
from broadway_api.clock import utc_now
from broadway_api.domain import (
    Claim,
    IdempotencyKey,
    Job,
    JobState,
    JobType,
    Reason,
    Result,
    Run,
    RunConfig,
    RunState,
    RunSummary,
    StageLog,
    Worker,
    WorkerState,
)
from broadway_api.errors import (
    ClaimLost,
    JobNotFound,
    NothingToRetry,
    RunEnded,
    RunNotEnded,
    RunNotFound,
    StoreUnavailable,
)
from broadway_api.events import WakeUps
from broadway_api.intake import Intake
from broadway_api.policy import Policy
from broadway_api.settling import Settler
from broadway_api.store.port import Store

logger = logging.getLogger(__name__)

#: Bodies larger than this are read beside the event loop, which they would hold for more than a few milliseconds.
LARGE_BODY = 32_768

#: Configs of runs that jobs are being handed out of. They never change, so they are never stale.
CACHED_CONFIGS = 64


#: Seconds between two looks at a run that somebody follows, and after which a silent stream shows that it lives.
LOOK_EVERY = 0.5
KEEP_ALIVE = 15.0


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
        self.settler = Settler(store, self.wake_ups, clock)
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
        await self.settler.settle_or_leave(run_id)
        return first

    async def cancel_run(self, run_id: str) -> RunState:
        """End a run now: its queued jobs at once, its running ones by the next heartbeat of their workers.

        A run that was cancelled before stays so. Raises RunNotFound, RunEnded.
        """
        while (run := await self._store.run(run_id)).state is not RunState.CANCELLED:
            if run.state.ended:
                raise RunEnded(run_id, run.state)
            await self._store.advance_run(run_id, leaving=run.state, to=RunState.CANCELLED, now=self.now())
        logger.info("run %s cancelled", run_id)
        await self.settler.settle_or_leave(run_id)
        return run.state

    async def retry_run(self, run_id: str, students: Sequence[Mapping[str, Any]] | None) -> int:
        """Try jobs of an ended run again; return how many.

        `students`: those whose roster entry has all the names and values of one of these, however they ended; None:
        every job that failed or was cancelled. Post-processing follows once more. Raises RunNotFound, RunNotEnded,
        NothingToRetry.
        """
        run = await self._store.run(run_id)
        if not run.state.ended:
            raise RunNotEnded(run_id, run.state)
        if not await self._store.is_settled(run_id):
            await self.settler.settle(run_id)
        jobs = [job async for job in self._all_jobs(run_id)]
        chosen = [job for job in jobs if _is_to_retry(job, students)]
        if not chosen:
            raise NothingToRetry(run_id)
        chosen += [job for job in jobs if job.type is JobType.POST_PROCESSING and job not in chosen]
        await self._store.retry_jobs(run_id, [job.id for job in chosen], self.policy.job_max_attempts)
        to = lifecycle.phase_of(chosen)
        if not await self._store.reopen_run(run_id, leaving=run.state, to=to):
            raise RunNotEnded(run_id, (await self._store.run(run_id)).state)
        logger.info("run %s: %d jobs are tried again", run_id, len(chosen))
        await self.settler.settle_or_leave(run_id)
        return len(chosen)

    async def _all_jobs(self, run_id: str) -> AsyncIterator[Job]:
        after: int | None = None
        while page := await self._store.run_jobs(run_id, limit=1_000, after=after):
            for job in page:
                yield job
            after = page[-1].seq

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

    async def workers(self) -> list[tuple[Worker, list[str], WorkerState]]:
        """Every registered worker, the jobs that it holds, and what it is up to."""
        now = self.now()
        return [
            (worker, jobs, lifecycle.worker_state(worker, now, self.policy.worker_lost_after))
            for worker, jobs in await self._store.workers()
        ]

    async def ping(self) -> None:
        """Raises StoreUnavailable."""
        await self._store.ping()

    async def run_events(
        self, run_id: str, last_seen: str | None
    ) -> AsyncGenerator[tuple[str, RunSummary] | None, None]:
        """The run as it is whenever that has changed, with an id for each; None now and then, when nothing has.

        Begins with the present unless that is the one of the id `last_seen`, and ends with the run, or when the server
        stops or cannot ask the store any more: whoever follows comes back. Raises RunNotFound and StoreUnavailable
        before the first.
        """
        silent, asked = 0.0, False
        while not self.wake_ups.closed:
            try:
                summary = await self._store.run_summary(run_id)
            except (RunNotFound, StoreUnavailable):
                if asked:
                    return
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

    async def deregister_worker(self, worker_id: str, *, crashed: bool = False) -> list[str]:
        """Forget a worker; return the jobs that were taken from it. Raises UnknownWorker.

        `crashed`: they died with it, which costs each an attempt, and fails those that have none left.
        """
        lost = await self._store.deregister_worker(worker_id, self.now(), crashed=crashed)
        self.wake_ups.jobs_queued(sum(job.state is JobState.QUEUED for job in lost))
        logger.info("worker %s %s, it held %d jobs", worker_id, "crashed" if crashed else "deregistered", len(lost))
        for run_id in {job.run_id for job in lost if job.state.ended}:
            await self.settler.settle_or_leave(run_id)
        return [job.job_id for job in lost]

    async def set_draining(self, worker_id: str, draining: bool) -> None:
        """Keep new jobs from a worker, or let it have them again, also out of quarantine. Raises UnknownWorker."""
        await self._store.set_draining(worker_id, draining)
        logger.info("worker %s %s", worker_id, "drains" if draining else "is back")

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

    async def finish_job(self, claim: Claim, result: Result) -> JobState:
        """Accept what came of a job, and move its run on; return the state that this result led to.

        Repeating it gets the same answer. Raises ClaimLost, JobNotFound, UnknownWorker.
        """
        try:
            finished = await self._store.finish_job(claim, result, self.now())
        except (ClaimLost, JobNotFound):
            await self._store.worker(claim.worker_id)  # a worker that must register again is told that first
            raise
        job = finished.job
        if finished.repeated:
            return lifecycle.state_after_attempt(job, claim.worker_id, claim.attempt)
        logger.info("job %s of run %s by worker %s: %s %s", job.id, job.run_id, claim.worker_id, job.state, job.reason)
        if result.reason and result.reason.is_infrastructure:
            await self._note_fault(job, claim.worker_id, result.reason)
        if job.state is JobState.QUEUED:
            self.wake_ups.jobs_queued(1)
        if finished.phase_over:
            await self.settler.settle_or_leave(job.run_id)
        return job.state

    async def _note_fault(self, job: Job, worker_id: str, reason: Reason) -> None:
        """Count an infrastructure fault against its worker, unless the run may be to blame.

        A missing image may be a course's misspelling, which every worker would stumble over; it counts once another
        worker has shown that the run's jobs can run.
        """
        if reason is Reason.IMAGE_UNAVAILABLE and not await self._store.finished_elsewhere(job.run_id, worker_id):
            return
        worker = await self._store.strike_worker(
            worker_id, self.now(), limit=self.policy.quarantine_after, pause=self.policy.quarantine_pause
        )
        if worker and worker.quarantined_until:
            logger.warning("worker %s (%s) is in quarantine: %s", worker_id, worker.hostname, reason)

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


def _is_to_retry(job: Job, students: Sequence[Mapping[str, Any]] | None) -> bool:
    if job.state is JobState.WAITING:  # of an ended run: a retry was broken off before it reopened the run
        return True
    if students is None:
        return job.state in (JobState.FAILED, JobState.CANCELLED)
    return job.student is not None and any(wanted.items() <= job.student.items() for wanted in students)


def _version(summary: RunSummary) -> str:
    """Names what a summary says: the same again, after a restart or from another process, has the same name."""
    text = repr((summary.run.state, sorted(summary.counts.items()), sorted(summary.reasons.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def _beside_loop(size: int, work: Callable[..., Any], *arguments: Any) -> Any:
    if size <= LARGE_BODY:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
