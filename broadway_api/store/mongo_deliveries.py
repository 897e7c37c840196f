"""The outbox of webhooks in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from broadway_api.domain import Delivery
from broadway_api.store.mongo_documents import DUE
from broadway_api.store.mongo_engine import translate_errors
from broadway_api.store.mongo_part import MongoPart


@translate_errors
class MongoDeliveries(MongoPart):
    """Deliveries; one without `due_at` is never due again."""

    async def put_delivery(self, delivery: Delivery) -> None:
        fields = {
            "run_id": delivery.run_id,
            "body": delivery.body,
            "attempts": delivery.attempts,
            "created_at": delivery.created_at,
            "due_at": delivery.due_at,
        }
        await self._deliveries.update_one({"_id": delivery.id}, {"$setOnInsert": fields}, upsert=True)

    async def take_delivery(self, now: datetime, pauses: Sequence[timedelta]) -> Delivery | None:
        in_order = [("due_at", 1), ("_id", 1)]
        while found := await self._deliveries.find_one({"due_at": {"$lte": now}}, sort=in_order, hint=DUE):
            attempts = found["attempts"]
            later = (
                {"$set": {"due_at": now + pauses[attempts]}} if attempts < len(pauses) else {"$unset": {"due_at": True}}
            )
            taken = await self._deliveries.update_one(
                {"_id": found["_id"], "attempts": attempts, "due_at": found["due_at"]},
                later | {"$inc": {"attempts": 1}},
            )
            if taken.matched_count:
                again = now + pauses[attempts] if attempts < len(pauses) else None
                return replace(_delivery(found), attempts=attempts + 1, due_at=again)
        return None

    async def end_delivery(self, delivery_id: str, now: datetime) -> None:
        heard = {"$unset": {"due_at": True}, "$set": {"heard_at": now}}
        await self._deliveries.update_one({"_id": delivery_id}, heard)

    async def note_delivery_fault(self, delivery_id: str, fault: str) -> None:
        await self._deliveries.update_one({"_id": delivery_id}, {"$set": {"fault": fault}})

    async def run_deliveries(self, run_id: str) -> list[Delivery]:
        found = self._deliveries.find({"run_id": run_id}, sort=[("created_at", 1), ("_id", 1)])
        return [_delivery(document) async for document in found]

    async def forget_deliveries(self, created_before: datetime) -> int:
        forgotten = await self._deliveries.delete_many({"created_at": {"$lt": created_before}})
        return int(forgotten.deleted_count)


def _delivery(document: Mapping[str, Any]) -> Delivery:
    return Delivery(
        id=document["_id"],
        run_id=document.get("run_id", ""),
        body=document["body"],
        attempts=document["attempts"],
        created_at=document["created_at"],
        due_at=document.get("due_at"),
        heard_at=document.get("heard_at"),
        fault=document.get("fault"),
    )
