"""Puts right what crashes and silent workers left behind. Any number of processes may sweep one store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from broadway_api.clock import StoreClock
from broadway_api.domain import JobState
from broadway_api.events import WakeUps
from broadway_api.policy import Policy
from broadway_api.settling import Settler
from broadway_api.store.port import Store

logger = logging.getLogger(__name__)

#: Runs that retention deletes in one sweep: a few, so that a sweep stays short.
DELETED_AT_ONCE = 10

#: Seconds between two searches for what broken-off creations left, and how old that must be: no creation takes so long.
TIDY_EVERY = 3600.0
HALF_CREATED_AFTER = timedelta(hours=1)


class Sweeper:
    """Takes back jobs of silent workers, takes steps that a crash left undone, forgets what is old.

    A lease is only called over by a sweeper that has watched, without a break, for as long as a lease lasts. Whatever
    kept heartbeats from being noted (this process was down or frozen, the store was away, its clock jumped) also broke
    the watch, and workers get the time of a whole lease to be heard again.
    """

    def __init__(
        self,
        store: Store,
        settler: Settler,
        wake_ups: WakeUps,
        policy: Policy,
        clock: StoreClock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settler = settler
        self._wake_ups = wake_ups
        self._policy = policy
        self._clock = clock
        self._monotonic = monotonic
        self._watching_since: float | None = None
        self._last_look = 0.0
        self._tidied: float | None = None

    async def run(self) -> None:
        """For ever: sweep now, and again after each pause. Raises StoreUnavailable."""
        while True:
            try:
                await self.sweep()
            except BaseException:
                self._watching_since = None
                raise
            await asyncio.sleep(self.interval)

    @property
    def interval(self) -> float:
        """Seconds between two sweeps: short enough that one of them that takes its time does not break the watch."""
        return min(self._policy.heartbeat_interval / 2, self._policy.lease.total_seconds() / 6)

    async def sweep(self) -> None:
        """One round. Raises StoreUnavailable."""
        jumped = await self._clock.synchronize()
        if self._watched_for_a_lease(broken=jumped):
            await self._expire_leases()
        for run_id in await self._store.unsettled_runs():
            await self._settler.settle(run_id)
        now = self._clock.now()
        await self._store.forget_workers(now - self._policy.worker_retention)
        if self._tidied is None or self._monotonic() - self._tidied >= TIDY_EVERY:
            if forgotten := await self._store.forget_half_created(now - HALF_CREATED_AFTER):
                logger.info("%d jobs removed of runs whose creation broke off", forgotten)
            self._tidied = self._monotonic()
        if self._policy.run_retention is not None:
            for run_id in await self._store.delete_runs(now - self._policy.run_retention, DELETED_AT_ONCE):
                logger.info("run %s deleted: it ended more than %s ago", run_id, self._policy.run_retention)

    def _watched_for_a_lease(self, *, broken: bool) -> bool:
        now, lease = self._monotonic(), self._policy.lease.total_seconds()
        if broken or self._watching_since is None or now - self._last_look > lease / 2:
            self._watching_since = now
        self._last_look = now
        return now - self._watching_since >= lease

    async def _expire_leases(self) -> None:
        now = self._clock.now()
        lost = await self._store.expire_leases(now, self._policy.lease)
        for job in lost:
            logger.warning("job %s of run %s lost by worker %s: %s", job.job_id, job.run_id, job.worker_id, job.state)
        self._wake_ups.jobs_queued(Counter(job.requirement for job in lost if job.state is JobState.QUEUED))
        for worker_id in {job.worker_id for job in lost}:
            await self._store.strike_worker(
                worker_id, now, limit=self._policy.quarantine_after, pause=self._policy.quarantine_pause
            )
