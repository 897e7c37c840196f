"""The queue of the MongoDB store: what is handed out, and what waits. See `port.py` for what each method promises."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from broadway_api.domain import CourseQueue, Job, JobState, JobType
from broadway_api.store.mongo_claims import Ask
from broadway_api.store.mongo_documents import BY_FAIRNESS, BY_STATE, BY_URGENCY
from broadway_api.store.mongo_engine import Document, translate_errors
from broadway_api.store.mongo_part import MongoPart
from broadway_api.store.places import Place

_URGENT = (BY_URGENCY, [("priority", -1), ("rank", 1), ("_id", 1)])

_QUEUED: Document = {"state": JobState.QUEUED}

#: Jobs of which one reading of the queue costs less than to count up to each of them.
_MANY = 20

#: Ids to decode at a time: a few milliseconds of the event loop.
_BATCH = 5_000


@translate_errors
class MongoQueue(MongoPart):
    """Jobs that wait for a worker: handed out, counted."""

    async def claim_jobs(
        self, worker_id: str, n: int, now: datetime, lease: timedelta, *, holding: Sequence[str] = ()
    ) -> list[Job]:
        return await self._exchange.claim(Ask(worker_id=worker_id, n=n, now=now, lease=lease, holding=holding))

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
