"""What graders do, and what is done with them, one method a use case."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from broadway_api import ids, lifecycle
from broadway_api.domain import Claim, FinishedJob, Job, JobState, Reason, Result, Worker, WorkerState
from broadway_api.errors import ClaimLost, JobNotFound, UnknownWorker
from broadway_api.events import WakeUps
from broadway_api.handouts import Handout, Handouts, SecretsUnavailable
from broadway_api.known_runs import KnownRuns
from broadway_api.policy import Policy
from broadway_api.settling import Settler
from broadway_api.store.port import Store
from broadway_api.tenants import Principal, Role
from broadway_api.vault import Vault

logger = logging.getLogger(__name__)

#: Workers of which is kept at hand what never changes of them: as many as connect to one process, since one more than
#: are kept makes every heartbeat ask the store who its worker is.
KNOWN_WORKERS = 20_000


class Fleet:
    """Workers: admitted, heard of, handed jobs, heard out, kept from work, listed.

    `by` is whoever asks. A worker that somebody else's token registered is unknown to them.
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
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._policy = policy
        self._handouts = Handouts(store, known, vault)
        self._settler = settler
        self._wake_ups = wake_ups
        self._now = now
        self._workers: OrderedDict[str, Worker] = OrderedDict()

    async def register(
        self,
        *,
        hostname: str,
        slots: int = 1,
        runtime: str = "",
        version: str = "",
        labels: Mapping[str, str],
        name: str | None = None,
        by: Principal,
    ) -> Worker:
        """Admit a worker and give it its id. Raises WorkerNameTaken."""
        now = self._now()
        worker = Worker(
            id=ids.new_id(),
            hostname=hostname,
            slots=slots,
            runtime=runtime,
            version=version,
            labels=labels,
            registered_at=now,
            last_seen=now,
            name=name,
            owner=by.owner,
        )
        await self._store.register_worker(worker)
        logger.info("worker %s registered: %s, %d slots, %s", worker.id, hostname, slots, runtime or "runtime unknown")
        return worker

    async def heartbeat(self, worker_id: str, running: Sequence[Claim] | None, *, by: Principal) -> list[str]:
        """Renew leases; return the jobs that the worker has lost. Raises UnknownWorker."""
        await self.check_owner(worker_id, by)
        lost = await self._store.heartbeat(worker_id, running, self._now(), self._policy.lease)
        if lost:
            logger.info("worker %s no longer holds %s", worker_id, ", ".join(lost))
        return lost

    async def deregister(self, worker_id: str, *, crashed: bool = False, by: Principal) -> list[str]:
        """Forget a worker; return the jobs that were taken from it. Raises UnknownWorker.

        `crashed`: they died with it, which costs each an attempt, and fails those that have none left.
        """
        await self.check_owner(worker_id, by)
        lost = await self._store.deregister_worker(worker_id, self._now(), crashed=crashed)
        self._wake_ups.jobs_queued(Counter(job.requirement for job in lost if job.state is JobState.QUEUED))
        logger.info("worker %s %s, it held %d jobs", worker_id, "crashed" if crashed else "deregistered", len(lost))
        for run_id in {job.run_id for job in lost if job.state.ended}:
            await self._settler.settle_or_leave(run_id)
        return [job.job_id for job in lost]

    async def set_draining(self, worker_id: str, draining: bool) -> None:
        """Keep new jobs from a worker, or let it have them again, also out of quarantine. Raises UnknownWorker."""
        await self._store.set_draining(worker_id, draining)
        logger.info("worker %s %s", worker_id, "drains" if draining else "is back")

    async def claim(
        self, worker_id: str, slots: int, holding: Sequence[str], wait: float, *, by: Principal
    ) -> list[Handout]:
        """Up to `slots` jobs for a worker; waits up to `wait` seconds for the first. Raises UnknownWorker.

        A caller whose client has gone cancels this; a job that was claimed in that moment is handed out again when
        the worker next asks.
        """
        await self.check_owner(worker_id, by)
        labels = (await self._known_worker(worker_id)).labels
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            with self._wake_ups.place(labels) as woken:
                if handouts := await self._hand_out(worker_id, slots, holding):
                    return handouts
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or self._wake_ups.closed:
                    return []
                try:
                    async with asyncio.timeout(left):
                        await woken.wait()
                except TimeoutError:
                    return []

    async def finish(self, claim: Claim, result: Result, *, by: Principal) -> JobState:
        """Accept what came of a job, and move its run on; return the state that this result led to.

        Repeating it gets the same answer. Raises ClaimLost, JobNotFound, UnknownWorker.
        """
        await self.check_owner(claim.worker_id, by)
        (outcome,) = await self._accept([(claim, result)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def exchange(
        self,
        worker_id: str,
        results: Sequence[tuple[Claim, Result]],
        slots: int,
        holding: Sequence[str],
        *,
        by: Principal,
    ) -> tuple[list[JobState | ClaimLost | JobNotFound], list[Handout]]:
        """Accept a worker's results, each for itself as `finish` does, and hand out up to `slots` new jobs, if any.

        Both go to the store together, and nothing is waited for: whoever gets no job here had better poll.
        Raises UnknownWorker.
        """
        await self.check_owner(worker_id, by)
        if not slots:
            return await self._accept(results), []
        # The claim may overtake the results: what they are about is held as long as it is not known to be over.
        held = [*holding, *(claim.job_id for claim, _ in results)]
        answers, jobs = await self._store.exchange(
            worker_id, results, slots, self._now(), self._policy.lease, holding=held
        )
        outcomes = await self._follow_up(results, answers)
        handouts = await self._handouts_of(jobs, worker_id)
        return outcomes, handouts if handouts or not jobs else await self._hand_out(worker_id, slots, held)

    async def _hand_out(self, worker_id: str, slots: int, holding: Sequence[str]) -> list[Handout]:
        """Up to `slots` jobs, without waiting for any. Raises UnknownWorker."""
        while True:
            jobs = await self._store.claim_jobs(worker_id, slots, self._now(), self._policy.lease, holding=holding)
            handouts = await self._handouts_of(jobs, worker_id)
            if handouts or not jobs:
                return handouts  # else none of them can be run; there may be others

    async def _handouts_of(self, jobs: Sequence[Job], worker_id: str) -> list[Handout]:
        """Those of the jobs that can be run; the others have ended."""
        return [handout for job in jobs if (handout := await self._handout_or_fail(job, worker_id))]

    async def _accept(self, results: Sequence[tuple[Claim, Result]]) -> list[JobState | ClaimLost | JobNotFound]:
        return await self._follow_up(results, await self._store.finish_jobs(results, self._now()))

    async def _follow_up(
        self, results: Sequence[tuple[Claim, Result]], answers: Sequence[FinishedJob | ClaimLost | JobNotFound]
    ) -> list[JobState | ClaimLost | JobNotFound]:
        """Do what results lead to that the store took; the state that each led to, or why it was refused."""
        for refusal in answers:
            if isinstance(refusal, ClaimLost | JobNotFound):
                await self._store.worker(results[0][0].worker_id)  # who must register again is told that first
                break
        over: dict[str, None] = {}
        outcomes: list[JobState | ClaimLost | JobNotFound] = []
        for (claim, result), answer in zip(results, answers, strict=True):
            if isinstance(answer, FinishedJob):
                outcomes.append(await self._note(claim, result, answer))
                if answer.phase_over and not answer.repeated:
                    over[answer.job.run_id] = None
            else:
                outcomes.append(answer)
        for run_id in over:
            await self._settler.settle_or_leave(run_id)
        return outcomes

    async def _note(self, claim: Claim, result: Result, finished: FinishedJob) -> JobState:
        """Tell whom it concerns that a result was accepted; return the state that it led to."""
        job = finished.job
        if finished.repeated:
            return lifecycle.state_after_attempt(job, claim.worker_id, claim.attempt)
        # Of a thousand jobs a second that go well the store knows enough.
        level = logging.DEBUG if result.success else logging.INFO
        logger.log(
            level, "job %s of run %s by worker %s: %s %s", job.id, job.run_id, claim.worker_id, job.state, job.reason
        )
        if result.reason and result.reason.is_infrastructure:
            await self._note_fault(job, claim.worker_id, result.reason)
        if job.state is JobState.QUEUED:
            self._wake_ups.jobs_queued({job.requirement: 1})
        return job.state

    async def check_owner(self, worker_id: str, by: Principal) -> None:
        """Raises UnknownWorker unless the worker is theirs."""
        if by.role is not Role.OPERATOR and not by.speaks_for((await self._known_worker(worker_id)).owner):
            raise UnknownWorker(worker_id)

    async def _known_worker(self, worker_id: str) -> Worker:
        """The worker as it was once: its owner and labels never change. Raises UnknownWorker if it never was seen."""
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = await self._store.worker(worker_id)
            if len(self._workers) > KNOWN_WORKERS:
                self._workers.popitem(last=False)
        return worker

    async def _note_fault(self, job: Job, worker_id: str, reason: Reason) -> None:
        """Count an infrastructure fault against its worker, unless the run may be to blame.

        A missing image may be a course's misspelling, which every worker would stumble over; it counts once another
        worker has shown that the run's jobs can run.
        """
        if reason is Reason.IMAGE_UNAVAILABLE and not await self._store.finished_elsewhere(job.run_id, worker_id):
            return
        worker = await self._store.strike_worker(
            worker_id, self._now(), limit=self._policy.quarantine_after, pause=self._policy.quarantine_pause
        )
        if worker and worker.quarantined_until:
            logger.warning("worker %s (%s) is in quarantine: %s", worker_id, worker.hostname, reason)

    async def _handout_or_fail(self, job: Job, worker_id: str) -> Handout | None:
        """The job for its worker; None if that cannot be, which ends the job."""
        try:
            return await self._handouts.of(job)
        except SecretsUnavailable as problem:
            logger.warning("job %s of run %s cannot be handed out: %s", job.id, job.run_id, problem)
            info = {"reason": Reason.SECRET_UNAVAILABLE.value, "message": str(problem)}
            claim = Claim(job_id=job.id, worker_id=worker_id, attempt=job.attempt)
            # It may be refused, if the job was cancelled this very moment.
            await self._accept([(claim, Result(success=False, reason=Reason.SECRET_UNAVAILABLE, info=(info,)))])
            return None

    async def workers(self) -> list[tuple[Worker, list[str], WorkerState]]:
        """Every registered worker, the jobs that it holds, and what it is up to."""
        now = self._now()
        return [
            (worker, jobs, lifecycle.worker_state(worker, now, self._policy.worker_lost_after))
            for worker, jobs in await self._store.workers()
        ]
