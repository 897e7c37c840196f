"""Places in the MongoDB store's queue, see `places.py`: openings are kept in their runs, frontiers by themselves."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

from pymongo import ReturnDocument

from broadway_api.domain import JobState
from broadway_api.store.mongo_background import Background
from broadway_api.store.mongo_documents import BY_URGENCY
from broadway_api.store.mongo_engine import Collection as MongoCollection
from broadway_api.store.mongo_engine import Document
from broadway_api.store.places import EVERYTHING, Keys, Lane, Opening, Outlook, Place

#: How far a frontier is moved: so many hand-outs cost one write more, and a position counts some hundred keys.
AHEAD = 256


class MongoPlaces:
    """Moves frontiers before jobs are handed out, and tells how many jobs stand before a place."""

    def __init__(self, jobs: MongoCollection, runs: MongoCollection, frontiers: MongoCollection) -> None:
        self._jobs = jobs
        self._runs = runs
        self._frontiers = frontiers
        self._known: dict[Lane, float] = {}  # as they were at least when this process last looked
        self._soon_at: dict[Lane, float] = {}  # near them, if there is more behind
        self._background = Background()

    async def about_to_hand_out(self, jobs: Sequence[Document], *, under_load: bool) -> None:
        """Move the frontiers of the jobs' lanes to where they stand, or beyond. Whoever takes a job calls this before.

        A process that dies in between leaves a frontier that is too high, which is harmless. Under load a frontier that
        is near is moved before anybody has to wait for it.
        """
        furthest: dict[Lane, float] = {}
        for job in jobs:
            lane = (job["requirement"], job["priority"])
            furthest[lane] = max(job["rank"], furthest.get(lane, job["rank"]))
        await asyncio.gather(
            *(self._move(lane, rank) for lane, rank in furthest.items() if rank > self._known.get(lane, -EVERYTHING))
        )
        for lane, rank in furthest.items():
            if under_load and rank > self._soon_at[lane]:
                self._background.start(lane, functools.partial(self._move, lane, rank))

    async def close(self) -> None:
        """Give up what is moved in the background."""
        await self._background.close()

    async def _move(self, lane: Lane, rank: float) -> None:
        requirement, priority = lane
        queued = {"state": JobState.QUEUED, "requirement": requirement, "priority": priority, "rank": {"$gte": rank}}
        in_order = self._jobs.find(queued, {"_id": False, "rank": True}, hint=BY_URGENCY).sort("rank")
        ranks = [job["rank"] for job in await in_order.limit(AHEAD).batch_size(AHEAD + 1).to_list()]
        frontier = await self._frontiers.find_one_and_update(
            {"_id": _name(lane)},
            {"$max": {"rank": max(ranks, default=rank)}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        self._known[lane] = cast("Document", frontier)["rank"]
        self._soon_at[lane] = ranks[AHEAD * 3 // 4] if len(ranks) == AHEAD else EVERYTHING

    async def outlook(self) -> Outlook:
        """What is known of the queue without counting."""
        frontiers, runs = await asyncio.gather(
            self._frontiers.find().to_list(),
            self._runs.find({"unsettled": True}, {"priority": True, "openings": True, "withdrawn": True}).to_list(),
        )
        known = {(one["_id"]["requirement"], one["_id"]["priority"]): float(one["rank"]) for one in frontiers}
        openings = []
        for run in runs:
            for kept in run.get("openings", {}).values():
                lane = (kept["requirement"], run.get("priority", 0))
                if run.get("withdrawn") or not kept["complete"]:  # for moments, unless a process died
                    known[lane] = EVERYTHING
                else:
                    openings.append(Opening(lane=lane, first=kept["first"], step=kept["step"], jobs=kept["jobs"]))
        return Outlook(openings=openings, frontiers=known)

    async def before(self, place: Place, outlook: Outlook, counted: Collection[str]) -> int:
        """How many queued jobs that require one of `counted` stand before a place."""
        number, keys = outlook.before(place, counted)
        return number + sum(await asyncio.gather(*(self._count(which) for one in keys for which in _ranges(one))))

    async def _count(self, which: Document) -> int:
        # The plain command counts keys, where count_documents would pass each on.
        counted = await self._jobs.database.command("count", self._jobs.name, query=which, hint=BY_URGENCY)
        return int(counted["n"])


def _name(lane: Lane) -> dict[str, Any]:
    requirement, priority = lane
    return {"requirement": requirement, "priority": priority}


def _ranges(keys: Keys) -> Iterator[Document]:
    """Keys to count as ranges of the index."""
    queued: Document = {"state": JobState.QUEUED, **_name(keys.lane)}
    if keys.end is None:
        yield queued
        return
    rank, job_id = keys.end
    if not keys.ties:
        yield queued | {"rank": {"$lt": rank}}
    if job_id:
        yield queued | {"rank": rank, "_id": {"$lt": job_id}}
