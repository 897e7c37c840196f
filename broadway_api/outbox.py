"""Tells a webhook how runs ended: at least once, signed, and never at the cost of anything else.

What is to be told is in the store before its run is settled, so that no crash loses it; a run that is settled twice
makes the same delivery, by its id. Taking a delivery makes it due again later, so nobody has to remember a failure.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from broadway_api import wire
from broadway_api.domain import Delivery
from broadway_api.store.port import Store

logger = logging.getLogger(__name__)

#: After how long a delivery that was not heard is due again: some eighteen attempts in three days.
PAUSES = tuple(timedelta(seconds=min(30 * 2**attempt, 6 * 3600)) for attempt in range(20))

#: How long deliveries are kept, so that a run which is settled again is not told of again.
KEPT = timedelta(days=7)

#: Seconds between two looks for deliveries that other processes made, or that are due again.
LOOK_EVERY = 5.0


class NotHeard(Exception):
    """The webhook did not answer with 2xx; why, without its URL."""


class Sender(Protocol):
    """Takes a body to where the operator said."""

    async def send(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Return once it was answered with 2xx. Raises NotHeard."""
        ...


class Outbox:
    """Runs that ended, told one after the other."""

    def __init__(self, store: Store, sender: Sender, key: bytes, now: Callable[[], datetime]) -> None:
        """`key` signs: whoever has it can tell what came from here."""
        self._store = store
        self._sender = sender
        self._key = key
        self._now = now
        self._made = asyncio.Event()

    async def run_ended(self, run_id: str) -> None:
        """Keep what is to be told of a run that has ended. Repeating it changes nothing, until it ends once more."""
        summary = await self._store.run_summary(run_id)
        now = self._now()
        ended = wire.summary_to_json(summary)
        about = ("grading_run_id", "course", "state", "success", "created_at", "started_at", "finished_at")
        delivery_id = hashlib.sha256(f"{run_id} {ended['finished_at']}".encode()).hexdigest()[:32]
        body = {
            "event": "run.ended",
            "delivery_id": delivery_id,
            **{name: ended[name] for name in (*about, "counts", "reasons")},
        }
        await self._store.put_delivery(
            Delivery(id=delivery_id, run_id=run_id, body=json.dumps(body), created_at=now, due_at=now)
        )
        self._made.set()

    async def run(self) -> None:
        """For ever: tell what is due. Raises StoreUnavailable."""
        while True:
            self._made.clear()
            while delivery := await self._store.take_delivery(self._now(), PAUSES):
                await self._tell(delivery)
            await self._store.forget_deliveries(self._now() - KEPT)
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._made.wait()
            except TimeoutError:
                continue

    async def _tell(self, delivery: Delivery) -> None:
        body, time = delivery.body.encode(), int(self._now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "Broadway-Delivery": delivery.id,
            "Broadway-Signature": f"t={time},v1={signature(self._key, time, body)}",
        }
        try:
            await self._sender.send(body, headers)
        except NotHeard as error:
            await self._store.note_delivery_fault(delivery.id, str(error))
            if delivery.attempts > len(PAUSES):
                logger.error("delivery %s was not heard and is given up: %s", delivery.id, error)  # noqa: TRY400
            else:
                logger.warning("delivery %s was not heard, attempt %d: %s", delivery.id, delivery.attempts, error)
        else:
            await self._store.end_delivery(delivery.id, self._now())
            logger.info("delivery %s was heard", delivery.id)


def signature(key: bytes, time: int, body: bytes) -> str:
    """HMAC-SHA256 of `<seconds since 1970>.<body>`, in hexadecimal digits."""
    return hmac.new(key, b"%d." % time + body, hashlib.sha256).hexdigest()
