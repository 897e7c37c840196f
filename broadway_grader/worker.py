"""The worker: register, claim jobs while slots are free, run them, report them; stop gracefully or at once."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from broadway_grader.client import ApiClient, Claims
from broadway_grader.delivery import Delivery
from broadway_grader.domain import Job, JobResult
from broadway_grader.errors import ApiError, UnknownWorker
from broadway_grader.heartbeat import Heartbeat
from broadway_grader.live_output import LiveOutput
from broadway_grader.recovery import Recovery
from broadway_grader.registration import Membership
from broadway_grader.retry import Backoff, retry
from broadway_grader.runner import JobRunner
from broadway_grader.spool import Spool

log = logging.getLogger(__name__)

#: Seconds, on average, between two polls of an empty queue. Most of it passes while the API holds the poll.
POLL_INTERVAL = 1.0
#: Seconds that deregistering may take. Without it the API notices our end when the leases run out.
GOODBYE_TIMEOUT = 10.0
#: How many claims are remembered whose results were refused.
REMEMBERED_CLAIMS = 100
#: How many jobs a poll may name as held; the wire contract's limit.
MOST_NAMED = 1024


@dataclasses.dataclass(kw_only=True, eq=False)
class _Held:
    """A claimed job, from its claim to the end of its report."""

    job_id: str
    attempt: int
    worker_id: str  # under which it was claimed, and under which alone its result is accepted
    task: asyncio.Task[None] | None = None
    reporting: bool = False


class Worker:
    """Serves one API with a number of slots.

    Both stops may be called at any time and any number of times, also before `run`.
    """

    def __init__(
        self,
        client: ApiClient,
        membership: Membership,
        runner: JobRunner,
        delivery: Delivery,
        spool: Spool,
        recovery: Recovery,
        *,
        slots: int,
        poll_wait: int,
        backoff: Backoff,
        chance: Callable[[], float] = random.random,
        live: LiveOutput | None = None,
    ) -> None:
        """`poll_wait`: seconds that the API is asked to hold a poll. `live`: what the runner's jobs print."""
        self._client = client
        self._membership = membership
        self._runner = runner
        self._delivery = delivery
        self._spool = spool
        self._recovery = recovery
        self._slots = slots
        self._poll_wait = poll_wait
        self._backoff = backoff
        self._chance = chance
        self._live = live or LiveOutput(is_on=False)
        self._held: dict[tuple[str, int], _Held] = {}
        # Claims whose results the API would not take. It may take them for ours still, and hand them out again.
        self._given_up: deque[tuple[str, int]] = deque(maxlen=REMEMBERED_CLAIMS)
        self._asking = asyncio.Lock()  # held by whoever asks the API for jobs
        self._slot_free = asyncio.Event()
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()

    def stop(self) -> None:
        """Take no new job; `run` returns when those that run have been reported."""
        self._stopping.set()

    def stop_now(self) -> None:
        """Kill what runs; `run` returns when it has been handed back to the queue."""
        self._stopping.set()
        self._forced.set()

    async def run(self) -> None:
        """Serve until stopped. Raises Unauthorized if the API refuses the cluster token to begin with."""
        joining = asyncio.create_task(self._membership.join(), name="registering")
        if not await _all_unless(self._stopping, joining):
            await _cancel(joining)
            return
        heartbeat = Heartbeat(
            self._client,
            self._membership,
            self._running,
            self._lost,
            self._live.heard,
            sleep=self._backoff.sleep,
            chance=self._chance,
        )
        beating = asyncio.create_task(heartbeat.run(), name="heartbeat")
        claiming = asyncio.create_task(self._claim_forever(), name="claiming")
        sending = asyncio.create_task(
            self._live.run(self._client, lambda: self._membership.worker_id), name="live output"
        )
        recovering = asyncio.create_task(self._recovery.run(), name="recovery")
        try:
            # None of these ends by itself: one that does has a fault, which must not go unnoticed.
            await _all_unless(self._stopping, claiming, beating, sending)
            await _cancel(claiming)
            log.info("stopping: no more jobs are taken, %d are still running", len(self._held))
            if not await _all_unless(self._forced, *self._tasks()):
                log.warning("stopping at once: killing %d jobs", len(self._held))
        finally:
            await _cancel(claiming, recovering, *self._tasks())
            await _cancel(beating, sending)
            await self._say_goodbye()

    async def _claim_forever(self) -> None:
        while True:
            await self._wait_for_slot()
            async with self._asking:
                pause = await self._fill_slots()
            if pause:
                await self._backoff.sleep(pause)

    async def _fill_slots(self) -> float:
        """Poll for as many jobs as there are free slots; return the seconds to leave the API alone for."""
        free = self._slots - len(self._held)
        if free <= 0:  # a report has brought a job meanwhile
            return 0.0
        asked_at, worker_id = self._clock(), self._membership.worker_id
        try:
            claim = functools.partial(self._claim, worker_id)
            claims = await retry(claim, "asking for jobs as worker %s", worker_id, backoff=self._backoff)
        except UnknownWorker:
            await self._membership.renew(worker_id)
            return 0.0
        except ApiError as error:
            log.error("asking for jobs as worker %s was refused: %s", worker_id, error)  # noqa: TRY400
            return self._backoff.longest
        await self._take_all(claims, worker_id, asked_at)
        if claims.jobs or claims.unusable:
            return 0.0
        # An API that held the poll needs no pause; one that does not must not be asked without end.
        pause = POLL_INTERVAL * (0.5 + self._chance()) - (self._clock() - asked_at)
        return max(pause, 0.1 * self._chance())

    async def _wait_for_slot(self) -> None:
        while len(self._held) >= self._slots:
            self._slot_free.clear()
            await self._slot_free.wait()

    async def _claim(self, worker_id: str) -> Claims:
        # Anew for each try: meanwhile jobs may have ended.
        free = max(1, self._slots - len(self._held))
        holding = self._holding(worker_id)
        return await self._client.claim(worker_id, slots=free, holding=holding, wait=self._poll_wait)

    def _holding(self, worker_id: str) -> Sequence[str]:
        """What the API need not give again."""
        return [*self._running(worker_id), *(job_id for job_id, _ in self._given_up)][:MOST_NAMED]

    async def _take_all(self, claims: Claims, worker_id: str, asked_at: float) -> None:
        """Give what a claim has brought its slots."""
        for job in await self._not_lost(claims.jobs, worker_id, self._clock() - asked_at):
            self._take(job.job_id, job.attempt, worker_id, functools.partial(self._serve, job))
        for unusable in claims.unusable:
            log.error(
                "job %s attempt %s cannot be run, reporting it as failed: %s",
                *(unusable.job_id, unusable.attempt, unusable.problem),
            )
            result = self._runner.failure(unusable.job_id, unusable.attempt, unusable.problem)
            self._take(result.job_id, result.attempt, worker_id, functools.partial(self._report, result))

    async def _not_lost(self, jobs: Sequence[Job], worker_id: str, age: float) -> Sequence[Job]:
        """Those of `jobs`, asked for `age` seconds ago, that are not known to have become somebody else's meanwhile.

        An answer may have been held up, here or on its way, for longer than its leases last. A lease outlasts the
        interval between two heartbeats: an answer to a younger question needs no other one.
        """
        registration = self._membership.current
        if not jobs or registration is None or age < registration.heartbeat:
            return jobs
        named = {**self._running(worker_id), **{job.job_id: job.attempt for job in jobs}}
        try:
            lost = (await self._client.heartbeat(worker_id, named)).lost
        except ApiError as error:
            log.warning("worker %s cannot tell whether its new jobs are still its own: %s", worker_id, error)
            return jobs  # waiting would not make it better: the next heartbeat tells
        for job_id in lost & {job.job_id for job in jobs}:
            log.warning("job %s was no longer ours when the answer that gave it came", job_id)
        return [job for job in jobs if job.job_id not in lost]

    def _take(
        self, job_id: str, attempt: int, worker_id: str, work: Callable[[_Held], Coroutine[Any, Any, None]]
    ) -> None:
        """Give a claimed job a slot."""
        if known := self._held.get((job_id, attempt)):
            # Handed out again under a new registration: the work goes on, its result now belongs to that.
            known.worker_id = worker_id
            return
        if (job_id, attempt) in self._given_up:
            log.warning("job %s attempt %d has run here and is not run again", job_id, attempt)
            return
        for older in [held for held in self._held.values() if held.job_id == job_id]:
            self._lost(older.job_id, older.attempt)
        held = _Held(job_id=job_id, attempt=attempt, worker_id=worker_id)
        self._held[job_id, attempt] = held
        held.task = asyncio.create_task(work(held), name=f"job {job_id} attempt {attempt}")
        # Not in the task itself: one that is cancelled before its first step never gets to its `finally`.
        held.task.add_done_callback(lambda task: self._free(held, task))

    def _free(self, held: _Held, task: asyncio.Task[None]) -> None:
        self._held.pop((held.job_id, held.attempt), None)
        self._slot_free.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("serving job %s failed", held.job_id, exc_info=error)

    async def _serve(self, job: Job, held: _Held) -> None:
        log.info("job %s attempt %d begins, %d stages", job.job_id, job.attempt, len(job.stages))
        # What is left of the job is removed while its result is on its way, and the next job with the answer.
        async with self._runner.running(job) as result:
            await self._report(result, held)

    async def _report(self, result: JobResult, held: _Held) -> None:
        held.reporting = True
        if not await self._delivery.deliver(result, lambda: held.worker_id, self._post):
            self._given_up.append((held.job_id, held.attempt))

    async def _post(self, holder: str, result: JobResult) -> str:
        """Post a result, and have the answer bring the jobs for its slot and others that are free.

        Not while somebody is asking already: of two questions at a time neither knows what the other was given, so both
        would be given the same.
        """
        free = self._slots - len(self._held) + 1  # none if those before are still being removed
        if free <= 0 or self._asking.locked() or self._stopping.is_set() or holder != self._membership.worker_id:
            return await self._client.report(holder, result)
        async with self._asking:
            asked_at = self._clock()
            state, claims = await self._client.report_and_claim(
                holder, result, slots=free, holding=self._holding(holder)
            )
            if not self._stopping.is_set():  # else it goes back with the goodbye
                await self._take_all(claims, holder, asked_at)
        return state

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()

    def _running(self, worker_id: str) -> Mapping[str, int]:
        """The jobs held under a worker id. Those of an earlier registration are nobody's: their leases run out."""
        return {held.job_id: held.attempt for held in self._held.values() if held.worker_id == worker_id}

    def _lost(self, job_id: str, attempt: int) -> None:
        """Stop a job that has become somebody else's. One that is being reported gets its answer from the report."""
        held = self._held.get((job_id, attempt))
        if held is None or held.task is None or held.reporting:
            return
        log.warning("stopping job %s attempt %d, it is no longer ours", job_id, attempt)
        held.task.cancel()

    async def _say_goodbye(self) -> None:
        worker_id = self._membership.worker_id
        backoff = dataclasses.replace(self._backoff, first=0.2, longest=2.0, attempts=4)
        try:
            async with asyncio.timeout(GOODBYE_TIMEOUT):
                handed_back = await retry(
                    lambda: self._client.deregister(worker_id), "deregistering worker %s", worker_id, backoff=backoff
                )
        except UnknownWorker:
            log.info("worker %s was no longer known", worker_id)  # an answer that got lost, or an operator's doing
        except (ApiError, TimeoutError) as error:
            log.warning("worker %s could not deregister: %s", worker_id, error or "no answer in time")
            return
        else:
            log.info("worker %s deregistered, %d jobs handed back", worker_id, len(handed_back))
        await self._membership.left()
        await asyncio.to_thread(self._spool.void, worker_id)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [held.task for held in self._held.values() if held.task is not None]


async def _all_unless(event: asyncio.Event, *tasks: asyncio.Task[Any]) -> bool:
    """Wait until all `tasks` have ended; False if `event` was set first. Raises at once what one of them raises."""
    interrupt = asyncio.create_task(event.wait())
    pending: set[asyncio.Task[Any]] = set(tasks)
    try:
        while pending and not interrupt.done():
            done, pending = await asyncio.wait({interrupt, *pending}, return_when=asyncio.FIRST_COMPLETED)
            pending.discard(interrupt)
            for task in done - {interrupt}:
                if not task.cancelled():
                    task.result()
        return not pending
    finally:
        interrupt.cancel()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
