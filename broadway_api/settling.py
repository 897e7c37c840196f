"""Takes the steps that a run is due: after every change, and again by the sweeper after every crash."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from broadway_api import capabilities, lifecycle
from broadway_api.errors import StoreError
from broadway_api.events import WakeUps
from broadway_api.store.port import Store

logger = logging.getLogger(__name__)


class Settler:
    """Asks `lifecycle.next_step` and does it, until there is none."""

    def __init__(
        self,
        store: Store,
        wake_ups: WakeUps,
        now: Callable[[], datetime],
        *,
        on_end: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`on_end` is told of each run that has ended: at least once, before it is noted as settled."""
        self._store = store
        self._wake_ups = wake_ups
        self._now = now
        self._on_end = on_end

    async def settle(self, run_id: str) -> None:
        """Take every step that a run is due. Any number of callers may do so at once, and after any crash."""
        while step := lifecycle.next_step(progress := await self._store.run_progress(run_id)):
            match step:
                case lifecycle.OpenPhase(job_type=job_type):
                    number = await self._store.open_phase(run_id, job_type, self._now())
                    required = capabilities.requirement_of(progress.run.config, job_type)
                    self._wake_ups.jobs_queued({required: number})
                case lifecycle.Advance(leaving=leaving, to=to):
                    if await self._store.advance_run(run_id, leaving=leaving, to=to, now=self._now()):
                        logger.info("run %s: %s → %s", run_id, leaving, to)
                case lifecycle.CancelLeftovers():
                    await self._store.cancel_jobs(run_id, self._now())
                case lifecycle.Settle():
                    if self._on_end is not None:
                        await self._on_end(run_id)
                    await self._store.settle_run(run_id)
                    return

    async def settle_or_leave(self, run_id: str) -> None:
        """Settle a run after a change that is durable: should the store fail now, the sweeper will do it."""
        try:
            await self.settle(run_id)
        except StoreError as error:
            logger.warning("run %s: its next step is left to the sweeper: %s", run_id, error)
