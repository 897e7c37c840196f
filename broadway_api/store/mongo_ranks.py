"""The order of the MongoDB store's queue, see `turns.py`: ranks, given when jobs are queued."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from pymongo import ReturnDocument

from broadway_api import capabilities
from broadway_api.domain import JobState, JobType, Run
from broadway_api.store import records
from broadway_api.store.mongo_documents import BY_FAIRNESS, BY_URGENCY, DIRECTORY
from broadway_api.store.mongo_engine import Collection, Document
from broadway_api.store.turns import LATELY, Flow


class MongoRanks:
    """Hands out ranks; keeps the last one of each flow, and the virtual times."""

    def __init__(self, jobs: Collection, workers: Collection, flows: Collection, meta: Collection) -> None:
        self._jobs = jobs
        self._workers = workers
        self._flows = flows
        self._meta = meta

    async def queued_requirements(self) -> list[str]:
        """What queued jobs require, each text once: it reads one key of an index for each."""
        return await self._jobs.distinct("requirement", {"state": JobState.QUEUED})

    async def reserve(
        self, run: Run, job_type: JobType, requirement: str, number: int, now: datetime, *, phase: str
    ) -> tuple[float, float]:
        """Take ranks for so many jobs of a run; return the first one, and the step from each to the next.

        Asked again for the same `phase`, as after a crash, it takes none anew, unless another phase joined the flow in
        between: that wastes some, which costs the course a little of its turn and nobody else anything.
        """
        served = await self._served(requirement, now)
        time = await self._virtual_time(run.priority, served)
        stranded = "" if requirement in served else requirement
        if stranded:
            least = await self._least_rank([requirement], run.priority)
            time = time if least is None else least
        flow, step = Flow.of(run, job_type, stranded), 1 / await self._weight(run.course)
        last_rank = {"$ifNull": ["$last_rank", 0.0]}
        fresh = {"phase": phase, "start": {"$max": [last_rank, time]}}
        place = await _upsert(
            self._flows,
            _name(flow),
            [
                {
                    "$set": {
                        "priority": flow.priority,
                        "reserved": {"$cond": [{"$eq": ["$reserved.phase", phase]}, "$reserved", fresh]},
                    }
                },
                {"$set": {"last_rank": {"$max": [last_rank, {"$add": ["$reserved.start", number * step]}]}}},
            ],
        )
        return float(place["reserved"]["start"]) + (0.0 if flow.in_front else step), step

    async def _served(self, requirement: str, now: datetime) -> list[str]:
        """What is required by queued jobs, and by those to come, and some worker has; all of it if there is none."""
        lately = {"last_seen": {"$gt": now - LATELY}}
        queued, texts = await asyncio.gather(self.queued_requirements(), self._workers.distinct("labels", lately))
        fleet = [records.from_text(text) for text in texts]
        return [
            required
            for required in {*queued, requirement}
            if not fleet or any(capabilities.fits(labels, required) for labels in fleet)
        ]

    async def _virtual_time(self, priority: int, served: Sequence[str]) -> float:
        """Where the queue is: the least rank that waits, or else the last one given; it never falls.

        A lane, the jobs of one priority, may be ahead of the others, but not behind.
        """
        overall, in_lane = await asyncio.gather(self._least_rank(served), self._least_rank(served, priority))
        if overall is None:
            overall = await self._last_rank({})
        if in_lane is None:
            in_lane = await self._last_rank({"priority": priority})
        lane = f"lanes.{priority}"
        queue = await _upsert(self._meta, "queue", {"$max": {"virtual_time": overall, lane: in_lane}})
        return max(float(queue["virtual_time"]), float(queue["lanes"][str(priority)]))

    async def _least_rank(self, served: Sequence[str], priority: int | None = None) -> float | None:
        queued = {"state": JobState.QUEUED, "requirement": {"$in": list(served)}}
        head = await self._jobs.find_one(
            queued if priority is None else queued | {"priority": priority},
            {"rank": True},
            sort=[("rank", 1), ("_id", 1)],
            hint=BY_FAIRNESS if priority is None else BY_URGENCY,
        )
        return None if head is None else float(head["rank"])

    async def _last_rank(self, which: Document) -> float:
        latest = await self._flows.find_one(which, {"last_rank": True}, sort=[("last_rank", -1)])
        return float(latest["last_rank"]) if latest else 0.0

    async def _weight(self, course: str) -> float:
        directory = await self._meta.find_one({"_id": DIRECTORY}, {f"courses.{course}.weight": True})
        entry = directory and directory.get("courses", {}).get(course)
        return float(entry["weight"]) if entry else 1.0


def _name(flow: Flow) -> str:
    """A course's own id for the flow that it had in the first version of the schema."""
    parts = [
        *([f"{flow.priority:+d}"] if flow.priority else []),
        *(["in front"] if flow.in_front else []),
        *([flow.stranded] if flow.stranded else []),
    ]
    return " ".join([flow.course, *parts])


async def _upsert(collection: Collection, key: str, update: Any) -> Document:
    """Change the document `key`, made if it is not there; return it as it is then."""
    document = await collection.find_one_and_update(
        {"_id": key}, update, upsert=True, return_document=ReturnDocument.AFTER
    )
    return cast("Document", document)
