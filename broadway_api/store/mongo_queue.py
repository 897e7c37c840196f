"""The queue of the MongoDB store: what is handed out, and what waits. See `port.py` for what each method promises."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument

from broadway_api import capabilities, lifecycle
from broadway_api.domain import CourseQueue, Job, JobState, JobType
from broadway_api.store.mongo_documents import BY_FAIRNESS, BY_STATE, BY_URGENCY, job_from_document
from broadway_api.store.mongo_engine import Document, MongoEngine, translate_errors
from broadway_api.store.mongo_part import MongoPart, exists
from broadway_api.store.places import Place
from broadway_api.store.turns import Turns

_URGENT = (BY_URGENCY, [("priority", -1), ("rank", 1), ("_id", 1)])
_FAIR = (BY_FAIRNESS, [("rank", 1), ("_id", 1)])

_QUEUED: Document = {"state": JobState.QUEUED}

#: Jobs of which one reading of the queue costs less than to count up to each of them.
_MANY = 20

#: Ids to decode at a time: a few milliseconds of the event loop.
_BATCH = 5_000


@translate_errors
class MongoQueue(MongoPart):
    """Jobs that wait for a worker: handed out, counted."""

    def __init__(self, engine: MongoEngine) -> None:
        super().__init__(engine)
        self._turns = Turns()
        self._handing_out = asyncio.Lock()

    async def claim_jobs(
        self, worker_id: str, n: int, now: datetime, lease: timedelta, *, holding: Sequence[str] = ()
    ) -> list[Job]:
        worker, queued = await asyncio.gather(self._see(worker_id, now, asked=True), self._ranks.queued_requirements())
        claimed = await self._hand_out_again(worker_id, n, now + lease, holding)
        wanted = lifecycle.new_jobs_allowed(worker, n - len(claimed), len(claimed) + len(holding), now)
        served = {"requirement": {"$in": [text for text in queued if capabilities.fits(worker.labels, text)]}}
        for_others = {"avoid_worker_id": worker_id, "avoid_until": {"$gt": now}}
        which: Document = {**_QUEUED, **served, "$nor": [for_others]}
        while wanted and served["requirement"]["$in"]:
            order = _FAIR if self._turns.is_fair(worker.labels) else _URGENT
            job = await self._hand_out(worker_id, which, order, now, now + lease)
            if job is not None:
                self._turns.took(worker.labels)
                claimed.append(job)
                wanted -= 1
            elif "$nor" not in which or not await self._may_take_others(worker_id, served | for_others, now - lease):
                break
            else:
                which = {**_QUEUED, **served}
        return claimed

    async def queue_depth(self, limit: int | None = None) -> int:
        bound: dict[str, Any] = {} if limit is None else {"limit": limit}
        return await self._jobs.count_documents(_QUEUED, hint=BY_FAIRNESS, **bound)

    async def queued_requirements(self, limit: int) -> Mapping[str, int]:
        required = await self._ranks.queued_requirements()
        counts = await asyncio.gather(
            *(
                self._jobs.count_documents({**_QUEUED, "requirement": text}, hint=BY_FAIRNESS, limit=limit)
                for text in required
            )
        )
        return dict(zip(required, counts, strict=True))

    async def queue_positions(self, job_ids: Sequence[str], *, stranded: Collection[str] = ()) -> Mapping[str, int]:
        fields = {"priority": True, "rank": True, "requirement": True}
        counted, found, outlook = await asyncio.gather(
            self._ranks.queued_requirements(),
            self._jobs.find({"_id": {"$in": list(job_ids)}, **_QUEUED}, fields).to_list(),
            self._places.outlook(),
        )
        which = [text for text in counted if text not in stranded]
        if len(found) > _MANY:
            own = {job["requirement"] for job in found}
            return await self._enumerated({job["_id"] for job in found}, which, own | {*which})
        places = [Place(priority=job["priority"], rank=job["rank"], id=job["_id"]) for job in found]
        positions = await asyncio.gather(*(self._places.before(place, outlook, which) for place in places))
        return {place.id: position for place, position in zip(places, positions, strict=True)}

    async def _enumerated(self, wanted: set[str], counted: Sequence[str], read: set[str]) -> Mapping[str, int]:
        """Positions of many jobs, found by reading the ids of all that stand before the last of them."""
        index, by = _URGENT
        in_order = self._jobs.find({**_QUEUED, "requirement": {"$in": list(read)}}, {"requirement": True}, hint=index)
        positions: dict[str, int] = {}
        position = 0
        async for job in in_order.sort(by).batch_size(_BATCH):
            if job["_id"] in wanted:
                positions[job["_id"]] = position
                if len(positions) == len(wanted):
                    break
            position += job["requirement"] in counted
        return positions

    async def queue_by_course(self) -> Mapping[str, CourseQueue]:
        live = {run["_id"]: run["course"] async for run in self._runs.find({"unsettled": True}, {"course": True})}
        queued = {"run_id": {"$in": list(live)}, "type": {"$in": list(JobType)}, **_QUEUED}
        groups = await self._jobs.aggregate(
            [{"$match": queued}, {"$group": {"_id": "$run_id", "depth": {"$sum": 1}}}], hint=BY_STATE
        )
        queues: dict[str, CourseQueue] = {}
        async for group in groups:
            # All queued jobs of a run are of one phase, which was queued at one time and requires one thing.
            fields = {"queued_at": True, "requirement": True}
            one = await self._jobs.find_one(queued | {"run_id": group["_id"]}, fields, hint=BY_STATE)
            if one is not None:
                course = live[group["_id"]]
                some = CourseQueue.of(one.get("requirement", ""), group["depth"], one["queued_at"])
                queues[course] = some.beside(queues.get(course))
        return queues

    async def _may_take_others(self, worker_id: str, which: Document, since: datetime) -> bool:
        """Whether there are jobs that others should try first, and no others."""
        if not await exists(self._jobs, {**_QUEUED, **which}, hint=BY_FAIRNESS):
            return False
        return not await exists(self._workers, {"_id": {"$ne": worker_id}, "last_seen": {"$gt": since}})

    async def _hand_out_again(self, worker_id: str, n: int, until: datetime, holding: Sequence[str]) -> list[Job]:
        """Jobs that the worker holds without knowing of them, with a new lease."""
        held = {"worker_id": worker_id, "state": JobState.RUNNING}
        found = self._jobs.find({**held, "_id": {"$nin": list(holding)}}, {"attempt": True})
        unanswered = [
            await self._jobs.find_one_and_update(
                {"_id": job["_id"], "attempt": job["attempt"], **held},
                {"$set": {"lease_expires_at": until}},
                return_document=ReturnDocument.AFTER,
            )
            for job in (await found.sort([("rank", 1), ("_id", 1)]).to_list())[:n]
        ]
        return [job_from_document(document) for document in unanswered if document is not None]

    async def _hand_out(
        self, worker_id: str, which: Document, order: tuple[str, list[tuple[str, int]]], now: datetime, until: datetime
    ) -> Job | None:
        """The first such job of the queue in an order, now the worker's: of each requirement it reads one key."""
        index, by = order
        place = {"requirement": True, "priority": True, "rank": True}
        async with self._handing_out:  # or all claims of this process would run after the same job
            while head := await self._jobs.find_one(which, place, sort=by, hint=index):
                await self._places.about_to_hand_out([head])
                document = await self._jobs.find_one_and_update(
                    {"_id": head["_id"], **which},
                    {
                        "$set": {
                            "state": JobState.RUNNING,
                            "worker_id": worker_id,
                            "lease_expires_at": until,
                            "started_at": now,
                        },
                        "$inc": {"attempt": 1},
                    },
                    hint="_id_",
                    return_document=ReturnDocument.AFTER,
                )
                if document is not None:
                    return job_from_document(document)
        return None
