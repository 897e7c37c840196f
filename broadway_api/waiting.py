"""What those are told who wait for the queue: where a job stands, and what keeps it there.

Computed at most once a second for all who ask for the same, however many follow.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from broadway_api import capabilities, lifecycle
from broadway_api.domain import CourseQueue, Job, JobState, RunSummary, Stranded, WorkerState
from broadway_api.policy import Policy
from broadway_api.store.port import Store

#: Seconds between two looks at what many ask for.
LOOK_EVERY = 1.0

#: Worker states in which new jobs may come, now or when a quarantine is over.
_TAKES_JOBS = (WorkerState.ALIVE, WorkerState.QUARANTINED)


class Waiting:
    """The queue as those see it who wait for it."""

    def __init__(
        self,
        store: Store,
        policy: Policy,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._policy = policy
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep
        self._fleet: Sequence[Mapping[str, str]] = ()
        self._fleet_seen: float | None = None
        self._followed: Counter[str] = Counter()
        self._round: asyncio.Task[Mapping[str, int]] | None = None
        self._last_round = -LOOK_EVERY

    async def with_stranded(self, summary: RunSummary) -> RunSummary:
        """The summary with those of its queued jobs that no worker can run."""
        numbers: Counter[str] = Counter()
        for job_type, number in summary.queued.items():
            numbers[capabilities.requirement_of(summary.run.config, job_type)] += number
        return replace(summary, stranded=await self.stranded(numbers))

    async def stranded(self, numbers: Mapping[str, int]) -> tuple[Stranded, ...]:
        """Those of so many queued jobs by what they require that no worker can run."""
        fleet = await self._labels_of_fleet() if numbers else ()
        return tuple(
            Stranded(requirement=required, jobs=number, message=message)
            for required, number in numbers.items()
            if (message := capabilities.shortage(required, fleet))
        )

    async def shortage(self, requirement: str) -> str | None:
        """Why no worker can run jobs that require that; None if one can."""
        return capabilities.shortage(requirement, await self._labels_of_fleet())

    async def place(self, job: Job) -> tuple[int | None, str | None]:
        """A queued job's position, which is how many jobs stand before it, and why no worker can run it.

        Among workers of which none can it has no position; where there are no workers at all it has.
        """
        if job.state is not JobState.QUEUED:
            return None, None
        shortage = await self.shortage(job.requirement)
        if shortage and await self._labels_of_fleet():
            return None, shortage
        return (await self._positions([job.id])).get(job.id), shortage

    async def follow(self, job_id: str) -> AsyncGenerator[int, None]:
        """A queued job's position, now and whenever it has changed, at most once a second; ends when it has none."""
        self._followed[job_id] += 1
        told: int | None = None
        try:
            while True:
                position = (await self._next_round()).get(job_id)
                if position is None:
                    return
                if position != told:
                    yield position
                    told = position
        finally:
            self._followed[job_id] -= 1
            self._followed += Counter()  # forgets those that nobody follows any more

    async def by_course(self) -> Mapping[str, CourseQueue]:
        """What each course has in the queue."""
        return await self._store.queue_by_course()

    async def _next_round(self) -> Mapping[str, int]:
        """The positions of all jobs that are followed, as of the next look, which is one for all."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._look(), name="queue positions")
        return await asyncio.shield(self._round)

    async def _look(self) -> Mapping[str, int]:
        await self._sleep(max(0.0, self._last_round + LOOK_EVERY - self._monotonic()))
        self._last_round = self._monotonic()
        return await self._positions(list(self._followed))

    async def _positions(self, job_ids: Sequence[str]) -> Mapping[str, int]:
        fleet = await self._labels_of_fleet()
        stranded = {
            required
            for required in await self._store.queued_requirements(limit=1)
            if fleet and capabilities.shortage(required, fleet)
        }
        return await self._store.queue_positions(job_ids, stranded=stranded)

    async def _labels_of_fleet(self) -> Sequence[Mapping[str, str]]:
        """The labels of each worker that is there and takes jobs, as they were a second ago at most."""
        if self._fleet_seen is None or self._monotonic() - self._fleet_seen >= LOOK_EVERY:
            self._fleet_seen = self._monotonic()
            now, lost_after = self._now(), self._policy.worker_lost_after
            self._fleet = [
                worker.labels
                for worker, _ in await self._store.workers()
                if lifecycle.worker_state(worker, now, lost_after) in _TAKES_JOBS
            ]
        return self._fleet
