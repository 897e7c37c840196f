"""Wake-ups for requests that wait for work. A hint only: whoever is woken asks the store again.

Other API processes make themselves heard through the store, where it can pass that on. A wake-up that is lost costs no
more than a second: `watch_queue` looks into the store that often, once for all that wait.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

from broadway_api import capabilities


class SharedQueue(Protocol):
    """The part of the store that the watchers need."""

    async def queued_requirements(self, limit: int) -> Mapping[str, int]:
        """What queued jobs require, with how many those are, counted no further than the limit."""
        ...

    async def jobs_queued_elsewhere(self) -> None:
        """Return when another process may have queued jobs."""
        ...


class Place(asyncio.Event):
    """Where one waits: set when there may be a job for it."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__()
        self.labels = labels
        self.woken_for = capabilities.NOTHING  # what the job requires that it was woken for


class WakeUps:
    """Those who wait for jobs, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Place, None] = OrderedDict()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether nobody may wait any more."""
        return self._closed

    @contextmanager
    def place(self, labels: Mapping[str, str]) -> Iterator[Place]:
        """A place in the line. Take it before asking the store, or what happens in between goes unnoticed."""
        place = Place(labels)
        self._waiting[place] = None
        try:
            yield place
        except BaseException:
            if place.is_set():  # it leaves without asking the store: its wake-up goes to the next
                self.jobs_queued({place.woken_for: 1})
            raise
        finally:
            self._waiting.pop(place, None)

    def jobs_queued(self, numbers: Mapping[str, int]) -> None:
        """Wake as many as there are new jobs, by what these require: those who can run them, longest waiting first."""
        for required, number in numbers.items():
            fit = (place for place in self._waiting if capabilities.fits(place.labels, required))
            for place in list(islice(fit, number)):
                del self._waiting[place]
                place.woken_for = required
                place.set()

    def close(self) -> None:
        """Wake all, for good: the server is stopping."""
        self._closed = True
        for place in self._waiting:
            place.set()
        self._waiting.clear()


async def watch_queue(store: SharedQueue, wake_ups: WakeUps, *, seconds: float = 1.0) -> None:
    """For ever: wake those who wait if the store has jobs that nobody told us of."""
    while True:
        await asyncio.sleep(seconds)
        if waiting := len(wake_ups):
            wake_ups.jobs_queued(await store.queued_requirements(limit=waiting))


async def listen_for_jobs(store: SharedQueue, wake_ups: WakeUps) -> None:
    """For ever: wake those who wait when the store says that another process has queued jobs."""
    while True:
        await store.jobs_queued_elsewhere()
        if waiting := len(wake_ups):
            wake_ups.jobs_queued(await store.queued_requirements(limit=waiting))
