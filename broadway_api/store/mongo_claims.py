"""Claims on MongoDB: those that arrive at one process together are served by a few commands for all of them.

The heads of both orders are read once, given to the callers in the order of the turns, and taken by one write, of which
each part is guarded: queued still, at that attempt. What another process took meanwhile is looked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument, UpdateOne

from broadway_api import capabilities, lifecycle
from broadway_api.domain import Job, JobState, Worker
from broadway_api.errors import UnknownWorker
from broadway_api.store.mongo_batches import Batches
from broadway_api.store.mongo_documents import BY_FAIRNESS, BY_URGENCY, HELD, job_from_document, worker_from_document
from broadway_api.store.mongo_engine import Collection, Document
from broadway_api.store.mongo_places import MongoPlaces
from broadway_api.store.mongo_ranks import MongoRanks
from broadway_api.store.turns import Turns

_URGENT = (BY_URGENCY, [("priority", -1), ("rank", 1), ("_id", 1)])
_FAIR = (BY_FAIRNESS, [("rank", 1), ("_id", 1)])

_QUEUED: Document = {"state": JobState.QUEUED}

#: What a job that is handed out need not carry.
_NO_LOG = {"log": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One call of `claim_jobs`."""

    worker_id: str
    n: int
    now: datetime
    lease: timedelta
    holding: Sequence[str]


@dataclass(kw_only=True, slots=True)
class _Claim:
    """What becomes of an ask."""

    ask: Ask
    worker: Worker
    wanted: int = 0
    served: tuple[str, ...] = ()
    jobs: list[Job] = field(default_factory=list)

    def is_for_others(self, job: Document) -> bool:
        """Whether another worker is to try it first."""
        until = job["avoid_until"]
        return job["avoid_worker_id"] == self.worker.id and until is not None and until > self.ask.now


class MongoClaims:
    """Hands out jobs."""

    def __init__(self, jobs: Collection, workers: Collection, ranks: MongoRanks, places: MongoPlaces) -> None:
        self._jobs = jobs
        self._workers = workers
        self._ranks = ranks
        self._places = places
        self._turns = Turns()
        # One batch at a time: two of one process would only run after the same jobs.
        self._batches: Batches[Ask, list[Job] | UnknownWorker] = Batches(self._serve, name="claims", at_once=1)

    async def claim(self, ask: Ask) -> list[Job]:
        """Jobs for a worker. Raises UnknownWorker."""
        answer = await self._batches.ask(ask)
        if isinstance(answer, UnknownWorker):
            raise answer
        return answer

    async def close(self) -> None:
        """Finish what was asked for."""
        await self._batches.close()

    async def _serve(self, asks: Sequence[Ask]) -> list[list[Job] | UnknownWorker]:
        answers: dict[int, list[Job] | UnknownWorker] = {}
        rest = dict(enumerate(asks))
        while rest:  # of one worker's asks each but the first sees what the one before it got
            firsts = {ask.worker_id: number for number, ask in reversed(rest.items())}
            together = {number: rest.pop(number) for number in sorted(firsts.values())}
            served = await self._serve_workers(list(together.values()))
            answers.update(zip(together, served, strict=True))
        return [answers[number] for number in range(len(asks))]

    async def _serve_workers(self, asks: Sequence[Ask]) -> list[list[Job] | UnknownWorker]:
        """Claims of different workers."""
        ids = [ask.worker_id for ask in asks]
        running = {"worker_id": {"$in": ids}, "state": JobState.RUNNING}
        documents, held, queued = await asyncio.gather(
            self._workers.find({"_id": {"$in": ids}}).to_list(),
            self._jobs.find(running, {"worker_id": True}, hint=HELD).to_list(),
            self._ranks.queued_requirements(),
        )
        workers = {document["_id"]: worker_from_document(document) for document in documents}
        claims = [_Claim(ask=ask, worker=workers[ask.worker_id]) for ask in asks if ask.worker_id in workers]
        unanswered = {job["worker_id"] for job in held if job["_id"] not in _holding(asks, job["worker_id"])}
        await asyncio.gather(
            self._note_asked(claims),
            *(self._hand_out_again(claim) for claim in claims if claim.worker.id in unanswered),
        )
        for claim in claims:
            ask = claim.ask
            holds = len(claim.jobs) + len(ask.holding)
            claim.wanted = lifecycle.new_jobs_allowed(claim.worker, ask.n - len(claim.jobs), holds, ask.now)
            claim.served = tuple(text for text in queued if capabilities.fits(claim.worker.labels, text))
        for served in {claim.served: None for claim in claims if claim.served}:
            await self._hand_out_among([claim for claim in claims if claim.served == served], served)
        by_worker = {claim.worker.id: claim.jobs for claim in claims}
        return [by_worker.get(worker_id, UnknownWorker(worker_id)) for worker_id in ids]

    async def _note_asked(self, claims: Iterable[_Claim]) -> None:
        """Note that workers asked. A clock that was set back does not make one look silent."""
        changes = [
            UpdateOne({"_id": claim.worker.id}, {"$max": {"last_seen": now}, "$set": {"asked_at": now}})
            for claim in claims
            for now in [claim.ask.now]
            if lifecycle.is_to_be_noted(claim.worker, now)
        ]
        if changes:
            await self._workers.bulk_write(changes, ordered=False)

    async def _hand_out_again(self, claim: _Claim) -> None:
        """Jobs that the worker holds without knowing of them, with a new lease."""
        ask = claim.ask
        held = {"worker_id": ask.worker_id, "state": JobState.RUNNING}
        found = self._jobs.find({**held, "_id": {"$nin": list(ask.holding)}}, {"attempt": True})
        for job in (await found.sort([("rank", 1), ("_id", 1)]).to_list())[: ask.n]:
            document = await self._jobs.find_one_and_update(
                {"_id": job["_id"], "attempt": job["attempt"], **held},
                {"$set": {"lease_expires_at": ask.now + ask.lease}},
                _NO_LOG,
                return_document=ReturnDocument.AFTER,
            )
            if document is not None:
                claim.jobs.append(job_from_document(document))

    async def _hand_out_among(self, claims: Sequence[_Claim], served: Sequence[str]) -> None:
        """Queued jobs to workers that can run the same ones, until all have what they want or nothing is left."""
        while open_claims := [claim for claim in claims if claim.wanted > 0]:
            number = sum(claim.wanted for claim in open_claims)
            urgent, fair = await asyncio.gather(*(self._heads(served, order, number) for order in (_URGENT, _FAIR)))
            chosen = self._chosen(open_claims, urgent, fair)
            await self._take(chosen)
            if len(chosen) == len(urgent) < number:
                return  # that was all there is
            if not chosen:
                break  # others are to try first what there is
        for claim in claims:
            if claim.wanted > 0:
                await self._hand_out_alone(claim)

    async def _heads(self, served: Sequence[str], order: tuple[str, list[tuple[str, int]]], n: int) -> list[Document]:
        """The first jobs of the queue in an order: of each requirement it reads as many keys at most."""
        index, by = order
        which = {**_QUEUED, "requirement": {"$in": list(served)}}
        return await self._jobs.find(which, _NO_LOG, hint=index).sort(by).limit(n).batch_size(n + 1).to_list()

    def _chosen(
        self, claims: Sequence[_Claim], urgent: Sequence[Document], fair: Sequence[Document]
    ) -> list[tuple[_Claim, Document]]:
        """Who is to get which job, in the order of the turns; nobody what others are to try first."""
        left = {job["_id"]: job for job in (*fair, *urgent)}
        chosen = []
        turns = self._turns.ahead()
        for claim in claims:
            for _ in range(claim.wanted):
                heads = fair if turns.is_fair(claim.worker.labels) else urgent
                job = next((one for one in heads if one["_id"] in left and not claim.is_for_others(one)), None)
                if job is None:
                    break
                turns.took(claim.worker.labels)
                chosen.append((claim, left.pop(job["_id"])))
        return chosen

    async def _take(self, chosen: Sequence[tuple[_Claim, Document]]) -> None:
        """Make each of those jobs the worker's, unless it was another's sooner."""
        if not chosen:
            return
        await self._places.about_to_hand_out([job for _, job in chosen])
        changes = [
            UpdateOne({"_id": job["_id"], **_QUEUED, "attempt": job["attempt"]}, {"$set": _handed_out(claim.ask, job)})
            for claim, job in chosen
        ]
        written = await self._jobs.bulk_write(changes, ordered=False)
        taken = {job["_id"] for _, job in chosen}
        if written.modified_count < len(chosen):
            taken = await self._taken(chosen)
        for claim, job in chosen:
            if job["_id"] in taken:
                claim.jobs.append(job_from_document(job | _handed_out(claim.ask, job)))
                claim.wanted -= 1
                self._turns.took(claim.worker.labels)

    async def _taken(self, chosen: Sequence[tuple[_Claim, Document]]) -> set[str]:
        """Which of those jobs are now as they were to be."""
        wanted = {job["_id"]: (claim.worker.id, job["attempt"] + 1) for claim, job in chosen}
        running = {"_id": {"$in": [*wanted]}, "state": JobState.RUNNING}
        found = self._jobs.find(running, {"worker_id": True, "attempt": True})
        return {job["_id"] async for job in found if (job["worker_id"], job["attempt"]) == wanted[job["_id"]]}

    async def _hand_out_alone(self, claim: _Claim) -> None:
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
            index, by = _FAIR if self._turns.is_fair(claim.worker.labels) else _URGENT
            job = await self._jobs.find_one(which, _NO_LOG, sort=by, hint=index)
            if job is not None:
                await self._take([(claim, job)])
            elif "$nor" not in which or await self._has_peers(ask):
                break
            else:
                which = served

    async def _has_peers(self, ask: Ask) -> bool:
        others = {"_id": {"$ne": ask.worker_id}, "last_seen": {"$gt": ask.now - ask.lease}}
        return await _exists(self._workers, others)


def _handed_out(ask: Ask, job: Mapping[str, Any]) -> Document:
    return {
        "state": JobState.RUNNING.value,
        "worker_id": ask.worker_id,
        "lease_expires_at": ask.now + ask.lease,
        "started_at": ask.now,
        "attempt": job["attempt"] + 1,
    }


def _holding(asks: Sequence[Ask], worker_id: str) -> Sequence[str]:
    return next(ask.holding for ask in asks if ask.worker_id == worker_id)


async def _exists(collection: Collection, wanted: Document, *, hint: str | None = None) -> bool:
    return await collection.find_one(wanted, {"_id": True}, hint=hint) is not None
