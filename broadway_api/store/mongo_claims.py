"""Claims on MongoDB: those that arrive at one process together are served by a few commands for all of them.

The heads of both orders are given to the callers in the order of the turns, and taken by one write, each part of which
is guarded: queued still, at that attempt. What another process took meanwhile is looked for again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pymongo import ReturnDocument

from broadway_api import capabilities, lifecycle
from broadway_api.domain import Job, JobState, Worker
from broadway_api.errors import UnknownWorker
from broadway_api.store.mongo_changes import Change, Guard
from broadway_api.store.mongo_documents import BY_FAIRNESS, job_from_document
from broadway_api.store.mongo_engine import Collection, Document
from broadway_api.store.mongo_places import MongoPlaces
from broadway_api.store.mongo_read_ahead import FAIR, NO_LOG, URGENT, Heads, ReadAhead, Sight
from broadway_api.store.mongo_results import Phase, phase_of
from broadway_api.store.mongo_running import RunningJobs
from broadway_api.store.mongo_worker_notes import WorkerNotes
from broadway_api.store.turns import Turns

_QUEUED: Document = {"state": JobState.QUEUED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One call of `claim_jobs`."""

    worker_id: str
    n: int
    now: datetime
    lease: timedelta
    holding: Sequence[str]


@dataclass(kw_only=True, slots=True)
class PendingClaim:
    """What becomes of an ask."""

    ask: Ask
    worker: Worker
    wanted: int = 0
    served: tuple[str, ...] = ()
    by_old_sight: bool = False  # there may be more by now
    jobs: list[Job] = field(default_factory=list)

    def look(self, sight: Sight) -> None:
        """Find out how many queued jobs it may have, and which."""
        ask, worker = self.ask, sight.workers.get(self.worker.id, self.worker)
        holds = len(self.jobs) + len(ask.holding)
        self.wanted = lifecycle.new_jobs_allowed(worker, ask.n - len(self.jobs), holds, ask.now)
        self.served = tuple(text for text in sight.queued if capabilities.fits(worker.labels, text))
        self.by_old_sight = sight.is_old

    def is_for_others(self, job: Document) -> bool:
        """Whether another worker is to try it first."""
        until = job["avoid_until"]
        return job["avoid_worker_id"] == self.worker.id and until is not None and until > self.ask.now


@dataclass(frozen=True, kw_only=True, slots=True)
class Handout:
    """A queued job that is to become a worker's, unless it is another's sooner."""

    claim: PendingClaim
    job: Document

    @property
    def change(self) -> Change:
        """Takes it, if it is still as it was read."""
        job = self.job
        guard = Guard(job["run_id"], JobState.QUEUED, job["attempt"], job.get("generation"))
        return Change(job_id=job["_id"], guard=guard, fields=self.fields)

    @property
    def fields(self) -> Document:
        """What taking it sets."""
        ask = self.claim.ask
        return {
            "state": JobState.RUNNING.value,
            "worker_id": ask.worker_id,
            "lease_expires_at": ask.now + ask.lease,
            "started_at": ask.now,
            "attempt": self.job["attempt"] + 1,
        }


class MongoClaims:
    """Hands out jobs."""

    def __init__(
        self,
        jobs: Collection,
        workers: Collection,
        places: MongoPlaces,
        running: RunningJobs,
        ahead: ReadAhead,
        notes: WorkerNotes,
    ) -> None:
        self._jobs = jobs
        self._workers = workers
        self._places = places
        self._running = running
        self._ahead = ahead
        self._notes = notes
        self._turns = Turns()

    def hand_out(self, asks: Sequence[Ask], *, under_load: bool) -> Claiming:
        """Begin to hand out jobs."""
        return Claiming(self, asks, under_load=under_load)

    async def begin(self, asks: Sequence[Ask], *, under_load: bool) -> list[PendingClaim]:
        """Claims of different workers, those that are known: with what they hold unknowingly, and what they want."""
        sight = await self._ahead.sight([ask.worker_id for ask in asks], may_be_old=under_load)
        claims = [
            PendingClaim(ask=ask, worker=sight.workers[ask.worker_id]) for ask in asks if ask.worker_id in sight.workers
        ]
        for claim in claims:
            ask = claim.ask
            if lifecycle.is_to_be_noted(claim.worker, ask.now):
                self._notes.asked(claim.worker, ask.now)
            held = self._running.held_by(ask.worker_id) | sight.held.get(ask.worker_id, set())
            if held - set(ask.holding):
                await self._hand_out_again(claim)
            claim.look(sight)
        return claims

    async def look_again(self, claims: Sequence[PendingClaim]) -> None:
        """Let claims go by what is so now, which began by what was so a moment ago."""
        sight = await self._ahead.sight([claim.worker.id for claim in claims], may_be_old=False)
        for claim in claims:
            claim.look(sight)

    async def _hand_out_again(self, claim: PendingClaim) -> None:
        """Jobs that the worker holds without knowing of them, with a new lease."""
        ask = claim.ask
        held = {"worker_id": ask.worker_id, "state": JobState.RUNNING}
        which = {**held, "_id": {"$nin": list(ask.holding)}}
        found = await self._jobs.find(which, {"attempt": True}).sort([("rank", 1), ("_id", 1)]).to_list()
        self._running.discard(self._running.held_by(ask.worker_id) - {job["_id"] for job in found})
        for job in found[: ask.n]:
            document = await self._jobs.find_one_and_update(
                {"_id": job["_id"], "attempt": job["attempt"], **held},
                {"$set": {"lease_expires_at": ask.now + ask.lease}},
                NO_LOG,
                return_document=ReturnDocument.AFTER,
            )
            if document is not None:
                claim.jobs.append(job_from_document(document))

    async def choose(self, claims: Iterable[PendingClaim], *, under_load: bool) -> list[Handout]:
        """Which queued jobs to try to take for those who want some. Who can have none wants none any more."""
        groups: dict[tuple[str, ...], list[PendingClaim]] = {}
        for claim in claims:
            if not claim.served:
                claim.wanted = 0
            elif claim.wanted > 0:
                groups.setdefault(claim.served, []).append(claim)
        heads_of = await self._ahead.heads(
            {served: sum(claim.wanted for claim in group) for served, group in groups.items()}, may_be_old=under_load
        )
        chosen: list[Handout] = []
        turns = self._turns.ahead()
        for group, heads in ((group, heads_of[served]) for served, group in groups.items()):
            # Some may have been given to workers that can run others besides.
            left = heads.left() if heads.are_all else None
            some = self._chosen(group, heads, turns)
            if len(some) == left:
                got = Counter(id(handout.claim) for handout in some)
                for claim in group:
                    claim.wanted = got[id(claim)]
            elif not some and not chosen:
                for claim in group:  # others are to try first what there is
                    await self._hand_out_alone(claim)
                    claim.wanted = 0
            chosen += some
        await self._places.about_to_hand_out([handout.job for handout in chosen], under_load=under_load)
        return chosen

    def _chosen(self, claims: Sequence[PendingClaim], heads: Heads, turns: Turns) -> list[Handout]:
        """Who is to get which job, in the order of the turns; nobody what others are to try first."""
        chosen = []
        for claim in claims:
            for _ in range(claim.wanted):
                job = heads.give(is_fair=turns.is_fair(claim.worker.labels), but_not=claim.is_for_others)
                if job is None:
                    break
                turns.took(claim.worker.labels)
                self._ahead.given(job["_id"])
                chosen.append(Handout(claim=claim, job=job))
        return chosen

    async def taken(self, chosen: Sequence[Handout], *, all_of_them: bool) -> list[Job]:
        """Note what became of chosen jobs that were to be written; return those that are now their worker's."""
        if not all_of_them:
            wanted = {one.job["_id"]: (one.claim.worker.id, one.job["attempt"] + 1) for one in chosen}
            running = {"_id": {"$in": [*wanted]}, "state": JobState.RUNNING}
            found = await self._jobs.find(running, {"worker_id": True, "attempt": True}).to_list()
            ours = {job["_id"] for job in found if (job["worker_id"], job["attempt"]) == wanted[job["_id"]]}
            if len(ours) < len(chosen):
                self._ahead.contended()
            chosen = [handout for handout in chosen if handout.job["_id"] in ours]
        jobs = []
        for handout in chosen:
            job = job_from_document(handout.job | handout.fields)
            handout.claim.jobs.append(job)
            handout.claim.wanted -= 1
            self._turns.took(handout.claim.worker.labels)
            self._running.add(job)
            jobs.append(job)
        return jobs

    async def _hand_out_alone(self, claim: PendingClaim) -> None:
        """One job after another, for a worker for which there may only be some that others are to try first.

        Those are passed over, and given to it in the end, if it is alone.
        """
        ask = claim.ask
        for_others = {"avoid_worker_id": ask.worker_id, "avoid_until": {"$gt": ask.now}}
        served = {**_QUEUED, "requirement": {"$in": list(claim.served)}}
        if not await _exists(self._jobs, {**served, **for_others}, hint=BY_FAIRNESS):
            return
        which: Document = {**served, "$nor": [for_others]}
        while claim.wanted > 0:
            index, by = FAIR if self._turns.is_fair(claim.worker.labels) else URGENT
            job = await self._jobs.find_one(which, NO_LOG, sort=by, hint=index)
            if job is not None:
                handout = Handout(claim=claim, job=job)
                await self._places.about_to_hand_out([job], under_load=False)
                taken = await self._jobs.update_one(handout.change.query, {"$set": handout.fields})
                await self.taken([handout], all_of_them=taken.modified_count == 1)
            elif "$nor" not in which or await self._has_peers(ask):
                break
            else:
                which = served

    async def _has_peers(self, ask: Ask) -> bool:
        others = {"_id": {"$ne": ask.worker_id}, "last_seen": {"$gt": ask.now - ask.lease}}
        return await _exists(self._workers, others)


class Claiming:
    """Hands out jobs in rounds, each of them a write: what another process took meanwhile is looked for again."""

    def __init__(self, claims: MongoClaims, asks: Sequence[Ask], *, under_load: bool) -> None:
        self._claims = claims
        self._asks = asks
        self._under_load = under_load
        self._rest = list(asks)
        self._all: list[PendingClaim] = []
        self._chosen: list[Handout] = []  # what is being written
        self.phases: set[Phase] = set()  # those of the jobs that were taken last

    async def next(self) -> list[Change]:
        """What is to be written next; nothing once nobody wants more. Then comes `written`."""
        self._chosen = []
        while not self._chosen:
            if not any(claim.wanted > 0 for claim in self._all):
                if asks := self._next_asks():
                    self._all += await self._claims.begin(asks, under_load=self._under_load)
                elif again := [claim for claim in self._all if claim.by_old_sight and len(claim.jobs) < claim.ask.n]:
                    self._under_load = False  # nobody goes away with less because of what is not so any more
                    await self._claims.look_again(again)
                else:
                    break
            self._chosen = await self._claims.choose(self._all, under_load=self._under_load)
        return [handout.change for handout in self._chosen]

    async def written(self, *, all_of_it: bool) -> None:
        """Note what became of what was to be written."""
        taken = await self._claims.taken(self._chosen, all_of_them=all_of_it)
        self.phases = {phase_of(job) for job in taken}

    def answers(self) -> list[list[Job] | UnknownWorker]:
        """What each ask got."""
        jobs = {id(claim.ask): claim.jobs for claim in self._all}
        return [jobs.get(id(ask), UnknownWorker(ask.worker_id)) for ask in self._asks]

    def _next_asks(self) -> list[Ask]:
        """Of each worker the first: the one after it sees what that got."""
        firsts = {ask.worker_id: ask for ask in reversed(self._rest)}
        asks = [ask for ask in self._rest if firsts[ask.worker_id] is ask]
        self._rest = [ask for ask in self._rest if firsts[ask.worker_id] is not ask]
        return asks


async def _exists(collection: Collection, wanted: Document, *, hint: str | None = None) -> bool:
    return await collection.find_one(wanted, {"_id": True}, hint=hint) is not None
