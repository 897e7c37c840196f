"""What claims on MongoDB go by: workers and the heads of the queue, which under load are read for many claims at once.

All of it is a hint. Every job is taken by a write that says what it must still be like, so what was read too long ago
costs another round, and hands out nothing twice. What it can do is bounded by `MAX_AGE`: jobs that another process has
queued since come after others once, and a worker still gets jobs that another process has just told to drain.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice

from broadway_api.domain import JobState, Worker
from broadway_api.store.mongo_documents import BY_FAIRNESS, BY_URGENCY, HELD, worker_from_document
from broadway_api.store.mongo_engine import Collection as MongoCollection
from broadway_api.store.mongo_engine import Document
from broadway_api.store.mongo_ranks import MongoRanks
from broadway_api.store.mongo_running import RunningJobs

URGENT = (BY_URGENCY, [("priority", -1), ("rank", 1), ("_id", 1)])
FAIR = (BY_FAIRNESS, [("rank", 1), ("_id", 1)])

_QUEUED: Document = {"state": JobState.QUEUED}

#: What a job that is handed out need not carry.
NO_LOG = {"log": False}

#: Seconds for which anything that was read is gone by.
MAX_AGE = 0.25

#: Seconds for which nothing is read ahead after another process took what was.
CONTENDED_FOR = 1.0

#: Jobs that are read beyond those that are wanted now: about as many as are handed out in that time at most.
AHEAD = 128


@dataclass(kw_only=True, slots=True)
class Sight:
    """Workers, and what is required by whatever is queued."""

    read_at: float
    queued: Sequence[str] = ()
    workers: dict[str, Worker] = field(default_factory=dict)
    held: dict[str, set[str]] = field(default_factory=dict)  # jobs that this process did not hand them out
    asked: set[str] = field(default_factory=set)  # workers whose claims went by it
    is_old: bool = False


@dataclass(kw_only=True, slots=True)
class Heads:
    """The first queued jobs of both orders that some workers can run."""

    read_at: float
    urgent: Sequence[Document]
    fair: Sequence[Document]
    are_all: bool  # nothing else was queued
    given: set[str] = field(default_factory=set)

    def drop_given(self) -> None:
        """Leave what was not given to anybody."""
        if self.given:
            self.urgent = [job for job in self.urgent if job["_id"] not in self.given]
            self.fair = [job for job in self.fair if job["_id"] not in self.given]
            self.given.clear()


class ReadAhead:
    """Reads what claims need, and keeps it for the next ones."""

    def __init__(
        self,
        jobs: MongoCollection,
        workers: MongoCollection,
        ranks: MongoRanks,
        running: RunningJobs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs = jobs
        self._workers = workers
        self._ranks = ranks
        self._running = running
        self._clock = clock
        self._sight: Sight | None = None
        self._heads: dict[tuple[str, ...], Heads] = {}
        self._forgotten = 0
        self._contended_until = -math.inf

    def forget(self) -> None:
        """Read everything anew: this process has changed the queue, or a worker."""
        self._sight = None
        self._heads.clear()
        self._forgotten += 1

    def ended(self, worker_id: str, job_id: str) -> None:
        """A worker that was seen holds a job no more."""
        if self._sight is not None and worker_id in self._sight.held:
            self._sight.held[worker_id].discard(job_id)

    def contended(self) -> None:
        """Read no jobs ahead for a while: other processes are after the same ones."""
        self._heads.clear()
        self._contended_until = self._clock() + CONTENDED_FOR

    async def sight(self, worker_ids: Collection[str], *, may_be_old: bool) -> Sight:
        """The workers, those that there are, and the queue."""
        sight, forgotten = self._sight, self._forgotten
        if may_be_old and sight is not None and self._is_young(sight.read_at):
            sight.is_old = True
            sight.asked.update(worker_ids)
            await self._read_workers(sight, [one for one in worker_ids if one not in sight.workers])
            return sight
        fresh = Sight(read_at=self._clock(), asked=set(worker_ids))
        # Under load the same workers come back soon.
        others = islice(sight.asked, AHEAD) if may_be_old and sight is not None else ()
        fresh.queued, _ = await asyncio.gather(
            self._ranks.queued_requirements(), self._read_workers(fresh, [*{*worker_ids, *others}])
        )
        if self._forgotten == forgotten:
            self._sight = fresh
        return fresh

    async def heads(self, served: tuple[str, ...], number: int, *, may_be_old: bool) -> Heads:
        """At least so many of the first queued jobs that require one of `served`, if there are that many."""
        may_be_old &= self._clock() >= self._contended_until
        heads = self._heads.get(served)
        if may_be_old and heads is not None and self._is_young(heads.read_at):
            heads.drop_given()
            if min(len(heads.urgent), len(heads.fair)) >= number:
                return heads
        read_at, forgotten, limit = self._clock(), self._forgotten, number + AHEAD * may_be_old
        urgent, fair = await asyncio.gather(*(self._read_head(served, order, limit) for order in (URGENT, FAIR)))
        heads = Heads(read_at=read_at, urgent=urgent, fair=fair, are_all=len(urgent) < limit)
        if self._forgotten == forgotten:
            self._heads[served] = heads
        return heads

    def give(self, job_id: str) -> None:
        """Offer a job to nobody else."""
        for heads in self._heads.values():
            heads.given.add(job_id)

    def _is_young(self, read_at: float) -> bool:
        return self._clock() - read_at < MAX_AGE

    async def _read_workers(self, sight: Sight, worker_ids: Sequence[str]) -> None:
        """Add workers, and what they hold, to what was seen."""
        if not worker_ids:
            return
        running = {"worker_id": {"$in": worker_ids}, "state": JobState.RUNNING}
        workers, held = await asyncio.gather(
            self._workers.find({"_id": {"$in": worker_ids}}).to_list(),
            self._jobs.find(running, {"worker_id": True}, hint=HELD).to_list(),
        )
        sight.workers.update((document["_id"], worker_from_document(document)) for document in workers)
        for job in held:
            if job["_id"] not in self._running:
                sight.held.setdefault(job["worker_id"], set()).add(job["_id"])

    async def _read_head(
        self, served: Sequence[str], order: tuple[str, list[tuple[str, int]]], n: int
    ) -> list[Document]:
        """The first jobs of the queue in an order: of each requirement it reads as many keys at most."""
        index, by = order
        which = {**_QUEUED, "requirement": {"$in": list(served)}}
        return await self._jobs.find(which, NO_LOG, hint=index).sort(by).limit(n).batch_size(n + 1).to_list()
