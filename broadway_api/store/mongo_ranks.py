"""The order of the queue: start-time fair queueing between courses.

A job's rank is when its course would be served if all courses that wait were served in turn, each by its weight. It
is set once, when the job is queued, so claiming is reading an index in order.
"""

from __future__ import annotations

from typing import Any, cast

from pymongo import ReturnDocument

from broadway_api.domain import JobState, JobType
from broadway_api.store.mongo_documents import DIRECTORY, QUEUE
from broadway_api.store.mongo_engine import Collection, Document


class MongoRanks:
    """Hands out ranks; keeps the last one of each course, and the queue's virtual time."""

    def __init__(self, jobs: Collection, courses: Collection, meta: Collection) -> None:
        self._jobs = jobs
        self._courses = courses
        self._meta = meta

    async def reserve(self, course: str, run_id: str, job_type: JobType, last_seq: int) -> Any:
        """Take ranks for a phase whose last job is `last_seq`; return the aggregation expression of a job's own.

        Asked again for the same phase, as after a crash, it takes none anew, unless another phase of the course was
        opened in between: that wastes some, which costs the course a little of its turn and nobody else anything.
        """
        # A job's position in its phase, from 1: the roster's jobs are numbered so, the others are alone in theirs.
        position, number = ("$seq", last_seq) if job_type is JobType.STUDENT else (1, 1)
        phase = f"{run_id}/{job_type}"
        last_rank = {"$ifNull": ["$last_rank", 0.0]}
        fresh = {"phase": phase, "start": {"$max": [last_rank, await self._virtual_time()]}}
        weight = await self._weight(course)
        end = {"$add": ["$reserved.start", number / weight]}
        place = await _upsert(
            self._courses,
            course,
            [
                {
                    "$set": {
                        "reserved": {"$cond": [{"$eq": ["$reserved.phase", phase]}, "$reserved", fresh]},
                    }
                },
                {"$set": {"last_rank": {"$max": [last_rank, end]}}},
            ],
        )
        return {"$add": [place["reserved"]["start"], {"$divide": [position, weight]}]}

    async def _weight(self, course: str) -> float:
        directory = await self._meta.find_one({"_id": DIRECTORY}, {f"courses.{course}.weight": True})
        entry = directory and directory.get("courses", {}).get(course)
        return float(entry["weight"]) if entry else 1.0

    async def _virtual_time(self) -> float:
        """The least rank that is queued, or else the last one given; it never falls."""
        head = await self._jobs.find_one(
            {"state": JobState.QUEUED}, {"rank": True}, sort=[("rank", 1), ("_id", 1)], hint=QUEUE
        )
        if head is not None:
            time = head["rank"]
        else:
            latest = await self._courses.find_one({}, {"last_rank": True}, sort=[("last_rank", -1)])
            time = latest["last_rank"] if latest else 0.0
        queue = await _upsert(self._meta, "queue", {"$max": {"virtual_time": time}})
        return float(queue["virtual_time"])


async def _upsert(collection: Collection, key: str, update: Any) -> Document:
    """Change the document `key`, made if it is not there; return it as it is then."""
    document = await collection.find_one_and_update(
        {"_id": key}, update, upsert=True, return_document=ReturnDocument.AFTER
    )
    return cast("Document", document)
