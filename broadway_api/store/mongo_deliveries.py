"""The outbox of webhooks in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from broadway_api.domain import Delivery
from broadway_api.store.mongo_documents import DUE
from broadway_api.store.mongo_engine import translate_errors
from broadway_api.store.mongo_part import MongoPart


@translate_errors
class MongoDeliveries(MongoPart):
    """Deliveries; one without `due_at` is never due again."""

    async def put_delivery(self, delivery: Delivery) -> None:
        fields = {
            "body": delivery.body,
            "attempts": delivery.attempts,
            "created_at": delivery.created_at,
            "due_at": delivery.created_at,
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
                return Delivery(
                    id=found["_id"], body=found["body"], attempts=attempts + 1, created_at=found["created_at"]
                )
        return None

    async def end_delivery(self, delivery_id: str) -> None:
        await self._deliveries.update_one({"_id": delivery_id}, {"$unset": {"due_at": True}})

    async def forget_deliveries(self, created_before: datetime) -> int:
        forgotten = await self._deliveries.delete_many({"created_at": {"$lt": created_before}})
        return int(forgotten.deleted_count)
