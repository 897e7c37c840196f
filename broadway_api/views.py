"""What people look at: lists, numbers and clusters, and lists as they change."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, Sequence

from broadway_api.distribution import Distribution, distribution
from broadway_api.domain import Cause, CourseQueue, Job, JobMeasure, JobQuery, JobState, Run, RunState, Stranded
from broadway_api.errors import RunNotFound, StoreUnavailable
from broadway_api.events import WakeUps
from broadway_api.known_runs import KnownRuns
from broadway_api.store.port import Store
from broadway_api.tenants import Principal
from broadway_api.waiting import Waiting

#: Seconds between two looks at what is followed, however many follow it.
LOOK_EVERY = 1.0

#: Seconds after which a silent stream shows that it lives.
KEEP_ALIVE = 15.0

#: Sights that are kept at hand.
_KEPT = 256

#: Causes of a run that are told apart.
MOST_CAUSES = 50

#: Runs with the numbers of their jobs by state.
ListedRuns = list[tuple[Run, Mapping[JobState, int]]]


class Views:
    """The use cases of those who look. `by` is whoever asks; what they do not see is not there."""

    def __init__(
        self,
        store: Store,
        *,
        known: KnownRuns,
        waiting: Waiting,
        wake_ups: WakeUps,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._known = known
        self._waiting = waiting
        self._wake_ups = wake_ups
        self._monotonic = monotonic
        self._sights: OrderedDict[Hashable, tuple[float, asyncio.Task[bytes]]] = OrderedDict()

    async def failures(self, run_id: str, *, by: Principal) -> tuple[list[Cause], int]:
        """The causes of a run's failures, the most frequent first, and how many jobs failed in all.

        Raises RunNotFound.
        """
        await self._check(run_id, by)
        causes = await self._store.causes(run_id, MOST_CAUSES)
        if len(causes) < MOST_CAUSES:
            return causes, sum(cause.jobs for cause in causes)
        counts = (await self._store.run_counts([run_id])).get(run_id, {})
        return causes, counts.get(JobState.FAILED, 0)

    async def distributions(self, run_id: str, *, by: Principal) -> tuple[Distribution | None, Distribution | None]:
        """How long the students' jobs took, in seconds, and their scores; None without any. Raises RunNotFound."""
        await self._check(run_id, by)
        return await asyncio.to_thread(_distributions, await self._store.measures(run_id))

    async def jobs(
        self, run_id: str, query: JobQuery, *, limit: int, offset: int, by: Principal
    ) -> tuple[list[Job], int]:
        """A page of the run's jobs that fit the query, and how many do. Raises RunNotFound."""
        await self._check(run_id, by)
        return await self._store.find_jobs(run_id, query, limit=limit, offset=offset)

    async def runs(
        self, *, state: RunState | None, course: str | None, limit: int, after: str | None, by: Principal
    ) -> ListedRuns:
        """A page of runs with their jobs counted, newest first."""
        wanted = course or by.course
        if wanted is not None and not by.sees(wanted):
            return []
        runs = await self._store.runs(state=state, course=wanted, limit=limit, after=after)
        counts = await self._store.run_counts([run.id for run in runs]) if runs else {}
        return [(run, counts.get(run.id, {})) for run in runs]

    async def queue(self, *, by: Principal) -> dict[str, tuple[CourseQueue, Sequence[Stranded]]]:
        """What the courses have in the queue, and what of it no worker can run, by course."""
        queues = await self._store.queue_by_course()
        return {
            course: (queue, await self._waiting.stranded(queue.requirements))
            for course, queue in sorted(queues.items())
            if by.sees(course)
        }

    async def follow(
        self, question: Hashable, look: Callable[[], Awaitable[bytes]]
    ) -> AsyncGenerator[bytes | None, None]:
        """What `look` sees whenever that has changed, first as it is now; None now and then, when nothing has.

        Whoever follows the same `question` shares one look a second. Ends when the server stops or the store cannot be
        asked any more: whoever follows comes back. What the first look raises comes out.
        """
        seen, silent, asked = b"", 0.0, False
        while not self._wake_ups.closed:
            try:
                sight = await self._sight(question, look)
            except StoreUnavailable:
                if asked:
                    return
                raise
            asked, digest = True, hashlib.sha256(sight).digest()
            if digest != seen:
                yield sight
                seen, silent = digest, 0.0
            elif silent >= KEEP_ALIVE:
                yield None
                silent = 0.0
            await asyncio.sleep(LOOK_EVERY)
            silent += LOOK_EVERY

    async def _sight(self, question: Hashable, look: Callable[[], Awaitable[bytes]]) -> bytes:
        known = self._sights.get(question)
        if known is None or self._monotonic() - known[0] >= LOOK_EVERY:
            task = asyncio.ensure_future(look())
            task.add_done_callback(_retrieved)
            known = self._sights[question] = (self._monotonic(), task)
            self._sights.move_to_end(question)
            if len(self._sights) > _KEPT:
                self._sights.popitem(last=False)
        # One of those who wait may go, which is nothing to the others.
        return await asyncio.shield(known[1])

    async def _check(self, run_id: str, by: Principal) -> None:
        if not by.sees(await self._known.course(run_id)):
            raise RunNotFound(run_id)


def _retrieved(task: asyncio.Task[bytes]) -> None:
    """Take what it raised, for those who waited may all have gone."""
    if not task.cancelled():
        task.exception()


def _distributions(measures: Sequence[JobMeasure]) -> tuple[Distribution | None, Distribution | None]:
    seconds = [measure.milliseconds / 1_000 for measure in measures if measure.milliseconds is not None]
    scores = [measure.score for measure in measures if measure.score is not None]
    return distribution(seconds), distribution(scores)
