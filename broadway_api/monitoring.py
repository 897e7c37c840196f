"""What monitoring asks of this process: its metrics, with what the store knows of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from broadway_api.domain import Worker, WorkerState
from broadway_api.errors import StoreUnavailable
from broadway_api.metrics import Metrics
from broadway_api.store.port import Store

#: Seconds that the store's answer is good for, however many ask.
GOOD_FOR = 1.0


class Monitoring:
    """Reads the queue and the fleet from the store, once a second at most."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        workers: Callable[[], Awaitable[Sequence[tuple[Worker, Sequence[str], WorkerState]]]],
        now: Callable[[], datetime],
    ) -> None:
        """`workers`: every worker, what it holds, and what it is up to."""
        self._store = store
        self._metrics = metrics
        self._workers = workers
        self._now = now
        self._asking = asyncio.Lock()
        self._asked: float | None = None  # loop time

    async def scrape(self) -> bytes:
        """All metrics as text. Those of this process are there also while the store is away."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if self._asked is None or loop.time() - self._asked >= GOOD_FOR:
                try:
                    queue, workers = await asyncio.gather(self._store.queue_by_course(), self._workers())
                    self._metrics.show_cluster(queue, workers, self._now())
                except StoreUnavailable:
                    self._metrics.hide_cluster()
                self._asked = loop.time()
        return self._metrics.exposition()
