"""What claims on MongoDB go by: workers and the heads of the queue, which under load are read for many claims at once.

All of it is a hint. Every job is taken by a write that says what it must still be like, so what was read too long ago
costs another round, and hands out nothing twice. What it can do is bounded by `MAX_AGE`: jobs that another process has
queued since come after others once, and a worker still gets jobs that another process has just told to drain.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from broadway_api.domain import JobState, Worker
from broadway_api.store.mongo_background import Background
from broadway_api.store.mongo_documents import BY_FAIRNESS, BY_ID, BY_URGENCY, HELD, worker_from_document
from broadway_api.store.mongo_engine import Collection as MongoCollection
from broadway_api.store.mongo_engine import Document
from broadway_api.store.mongo_ranks import MongoRanks
from broadway_api.store.mongo_running import RunningJobs
from broadway_api.store.turns import FAIR_EVERY

URGENT = (BY_URGENCY, [("priority", -1), ("rank", 1), ("_id", 1)])
FAIR = (BY_FAIRNESS, [("rank", 1), ("_id", 1)])

_QUEUED: Document = {"state": JobState.QUEUED}

#: What a job that is handed out need not carry.
NO_LOG = {"log": False}

#: Seconds for which anything that was read is gone by.
MAX_AGE = 0.25

#: Seconds after which it is read anew under load, while it is still gone by.
RENEWED_AFTER = 0.2

#: Seconds for which nothing is read ahead after another process took what was.
CONTENDED_FOR = 1.0

#: Jobs that are read beyond those that are wanted now: about as many as are handed out in that time at most.
AHEAD = 256

#: So many that are left are few enough to read more.
FEW = 96


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
    """The first queued jobs of both orders that some workers can run; those that are given to somebody leave `jobs`."""

    read_at: float
    served: tuple[str, ...]
    jobs: dict[str, Document]
    urgent: deque[str]
    fair: deque[str]
    are_all: bool  # nothing else was queued

    def left(self) -> int:
        """How many of the urgent order are not given to anybody."""
        return sum(job_id in self.jobs for job_id in self.urgent)

    def have(self, number: int) -> bool:
        """Whether so many of each order are left."""
        return all(
            sum(1 for _ in islice((job_id for job_id in order if job_id in self.jobs), number)) == number
            for order in (self.urgent, self.fair)
        )

    def give(self, *, is_fair: bool, but_not: Callable[[Document], bool]) -> Document | None:
        """Take the first job of an order off them; of the fair one an urgent job if it is short, which it seldom is."""
        for order in (self.fair, self.urgent) if is_fair else (self.urgent,):
            while order and order[0] not in self.jobs:
                order.popleft()
            left = (self.jobs[job_id] for job_id in order if job_id in self.jobs)
            job = next((job for job in left if not but_not(job)), None)
            if job is not None:
                return self.jobs.pop(job["_id"])
        return None


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
        self._under_load_at = -math.inf
        self._background = Background()
        self._touched: set[str] = set()  # jobs that were given or ended while something is read in the background

    def forget(self) -> None:
        """Read everything anew: this process has changed the queue, or a worker."""
        self._sight = None
        self._heads.clear()
        self._forgotten += 1

    def ended(self, worker_id: str, job_id: str) -> None:
        """A worker that was seen holds a job no more."""
        self._touch(job_id)
        if self._sight is not None and worker_id in self._sight.held:
            self._sight.held[worker_id].discard(job_id)

    def contended(self) -> None:
        """Read no jobs ahead for a while: other processes are after the same ones."""
        self._heads.clear()
        self._contended_until = self._clock() + CONTENDED_FOR

    async def sight(self, worker_ids: Collection[str], *, may_be_old: bool) -> Sight:
        """The workers, those that there are, and the queue."""
        sight, forgotten = self._sight, self._forgotten
        if may_be_old:
            self._under_load_at = self._clock()
        if may_be_old and sight is not None and self._is_young(sight.read_at):
            sight.is_old = True
            sight.asked.update(worker_ids)
            if self._clock() - sight.read_at > RENEWED_AFTER:
                self._begin("sight", lambda: self._renew_sight(sight))
            await self._read_workers(sight, [one for one in worker_ids if one not in sight.workers])
            return sight
        # Under load the same workers come back soon.
        others = islice(sight.asked, AHEAD) if self._is_young(self._under_load_at) and sight is not None else ()
        fresh = await self._read_sight([*{*worker_ids, *others}])
        fresh.asked.update(worker_ids)
        if self._forgotten == forgotten:
            self._sight = fresh
        return fresh

    async def heads(
        self, numbers: Mapping[tuple[str, ...], int], *, may_be_old: bool
    ) -> Mapping[tuple[str, ...], Heads]:
        """For each `served` at least so many of the first queued jobs that require one of it, as far as there are."""
        read_at, forgotten = self._clock(), self._forgotten
        is_contended = read_at < self._contended_until
        may_be_old &= not is_contended
        ahead = AHEAD if self._is_young(self._under_load_at) and not is_contended else 0
        found, missing = {}, []
        for served, number in numbers.items():
            heads = self._heads.get(served)
            if may_be_old and heads is not None and self._is_young(heads.read_at) and heads.have(number):
                found[served] = heads
                runs_out = len(heads.jobs) < FEW + number and not heads.are_all
                if runs_out or read_at - heads.read_at > RENEWED_AFTER:
                    self._begin(served, functools.partial(self._renew_heads, served))
            else:
                missing.append(self._read_heads(served, number, ahead, read_at))
        if missing:
            read = {heads.served: heads for heads in await asyncio.gather(*missing)}
            found |= read
            if self._forgotten == forgotten:
                self._heads |= read
        return found

    def given(self, job_id: str) -> None:
        """Offer a job to nobody else, whatever they can run."""
        self._touch(job_id)
        for heads in self._heads.values():
            heads.jobs.pop(job_id, None)

    async def close(self) -> None:
        """Give up what is read in the background."""
        await self._background.close()

    def _is_young(self, read_at: float) -> bool:
        return self._clock() - read_at < MAX_AGE

    def _begin(self, kind: Hashable, reading: Callable[[], Coroutine[None, None, None]]) -> None:
        """Read something in the background. What becomes of jobs meanwhile it may have read, or not."""
        if not self._background:
            self._touched.clear()
        self._background.start(kind, reading)

    def _touch(self, job_id: str) -> None:
        if self._background:
            self._touched.add(job_id)

    async def _renew_sight(self, sight: Sight) -> None:
        forgotten = self._forgotten
        fresh = await self._read_sight([*islice(sight.asked, AHEAD)])
        for held in fresh.held.values():
            held -= self._touched
        if self._forgotten == forgotten and self._sight is sight:
            self._sight = fresh

    async def _renew_heads(self, served: tuple[str, ...]) -> None:
        forgotten = self._forgotten
        fresh = await self._read_heads(served, 0, AHEAD, self._clock())
        for job_id in self._touched:
            fresh.jobs.pop(job_id, None)
        if self._forgotten == forgotten and self._clock() >= self._contended_until:
            self._heads[served] = fresh

    async def _read_sight(self, worker_ids: Sequence[str]) -> Sight:
        fresh = Sight(read_at=self._clock())
        fresh.queued, _ = await asyncio.gather(self._ranks.queued_requirements(), self._read_workers(fresh, worker_ids))
        return fresh

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

    async def _read_heads(self, served: tuple[str, ...], number: int, ahead: int, read_at: float) -> Heads:
        """The first jobs of both orders: of each requirement it reads as many keys of each at most.

        Those of the fair order mostly are those of the urgent one, so of the former it reads nothing but the keys.
        """
        limit = number + ahead
        urgent, fair = await asyncio.gather(
            self._read_head(served, URGENT, limit, NO_LOG), self._read_head(served, FAIR, limit, {"_id": True})
        )
        jobs = {job["_id"]: job for job in urgent}
        order = [job["_id"] for job in fair]
        if any(job_id not in jobs for job_id in order):
            order = order[: number + ahead // FAIR_EVERY]
            others = {**_QUEUED, "_id": {"$in": [job_id for job_id in order if job_id not in jobs]}}
            jobs |= {job["_id"]: job for job in await self._jobs.find(others, NO_LOG, hint=BY_ID).to_list()}
        return Heads(
            read_at=read_at,
            served=served,
            jobs=jobs,
            urgent=deque(job["_id"] for job in urgent),
            fair=deque(order),
            are_all=len(urgent) < limit,
        )

    async def _read_head(
        self, served: Sequence[str], order: tuple[str, list[tuple[str, int]]], n: int, fields: Mapping[str, bool]
    ) -> list[Document]:
        index, by = order
        which = {**_QUEUED, "requirement": {"$in": list(served)}}
        return await self._jobs.find(which, fields, hint=index).sort(by).limit(n).batch_size(n + 1).to_list()
