"""What an earlier release wrote, made fit for this one. Each upgrade may be cut off anywhere, and is done again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from broadway_api.domain import JobState
from broadway_api.store.mongo_documents import UNFINISHED

Database = AsyncDatabase[dict[str, Any]]


async def _to_version_2(database: Database) -> None:
    """Jobs got priorities and requirements. Those that have ended get theirs should they ever be queued again."""
    jobs = database["jobs"]
    indexes = await jobs.index_information()
    if UNFINISHED in indexes:
        plain = {"ended": False, "requirement": {"$exists": False}}
        await jobs.update_many(plain, {"$set": {"priority": 0, "requirement": ""}}, hint=UNFINISHED)
    if "queue" in indexes:
        await jobs.drop_index("queue")
    await database["courses"].update_many({"priority": {"$exists": False}}, {"$set": {"priority": 0}})


async def _to_version_3(database: Database) -> None:
    """Positions are told from openings, which what is queued already has not: it is counted, as far as it goes."""
    queued = {"state": JobState.QUEUED.value, "requirement": {"$exists": True}}
    lane = {"requirement": "$requirement", "priority": "$priority"}
    group = {"_id": lane, "rank": {"$max": "$rank"}}
    async for found in await database["jobs"].aggregate([{"$match": queued}, {"$group": group}]):
        await database["frontiers"].update_one({"_id": found["_id"]}, {"$max": {"rank": found["rank"]}}, upsert=True)


#: Each makes a version of the schema out of the one before.
UPGRADES: tuple[Callable[[Database], Awaitable[None]], ...] = (_to_version_2, _to_version_3)

#: The version that this release writes.
SCHEMA_VERSION = 1 + len(UPGRADES)
