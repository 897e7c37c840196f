"""Wake-ups for requests that wait for work. A hint only: whoever is woken asks the store again.

Other API processes make themselves heard through the store, where it can pass that on. A wake-up that is lost costs no
more than a second: `watch_queue` looks into the store that often, once for all that wait.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class SharedQueue(Protocol):
    """The part of the store that the watchers need."""

    async def queue_depth(self, limit: int | None = None) -> int:
        """How many jobs are queued, counted no further than the limit."""
        ...

    async def jobs_queued_elsewhere(self) -> None:
        """Return when another process may have queued jobs."""
        ...


class WakeUps:
    """Those who wait for jobs, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[asyncio.Event, None] = OrderedDict()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether nobody may wait any more."""
        return self._closed

    @contextmanager
    def place(self) -> Iterator[asyncio.Event]:
        """A place in the line. Take it before asking the store, or what happens in between goes unnoticed."""
        event = asyncio.Event()
        self._waiting[event] = None
        try:
            yield event
        except BaseException:
            if event.is_set():  # it leaves without asking the store: its wake-up goes to the next
                self.jobs_queued(1)
            raise
        finally:
            self._waiting.pop(event, None)

    def jobs_queued(self, number: int) -> None:
        """Wake as many as there are new jobs, the longest waiting first."""
        for _ in range(min(number, len(self._waiting))):
            event, _ = self._waiting.popitem(last=False)
            event.set()

    def close(self) -> None:
        """Wake all, for good: the server is stopping."""
        self._closed = True
        self.jobs_queued(len(self._waiting))


async def watch_queue(store: SharedQueue, wake_ups: WakeUps, *, seconds: float = 1.0) -> None:
    """For ever: wake those who wait if the store has jobs that nobody told us of."""
    while True:
        await asyncio.sleep(seconds)
        if waiting := len(wake_ups):
            wake_ups.jobs_queued(await store.queue_depth(limit=waiting))


async def listen_for_jobs(store: SharedQueue, wake_ups: WakeUps) -> None:
    """For ever: wake those who wait when the store says that another process has queued jobs."""
    while True:
        await store.jobs_queued_elsewhere()
        if waiting := len(wake_ups):
            wake_ups.jobs_queued(await store.queue_depth(limit=waiting))
