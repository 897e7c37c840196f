"""What is noted of workers on MongoDB as they claim and report: that they asked, and what they did.

Of a few calls it is written before they are answered. Under load it is gathered, and written four times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import datetime

from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from broadway_api.domain import Worker
from broadway_api.store.mongo_documents import BLAMELESS
from broadway_api.store.mongo_engine import Collection, Document

logger = logging.getLogger(__name__)

#: Seconds after which what was gathered is written.
GATHERED_FOR = 0.25


@dataclass(kw_only=True, slots=True)
class _Note:
    """What is to be written to a worker."""

    asked_at: datetime | None = None
    ended: int = 0
    blameless: bool = False

    @property
    def change(self) -> Document:
        """A clock that was set back does not make a worker look silent."""
        fields = {**({"asked_at": self.asked_at} if self.asked_at else {}), **(BLAMELESS if self.blameless else {})}
        change: Document = {"$set": fields} if fields else {}
        if self.asked_at:
            change["$max"] = {"last_seen": self.asked_at}
        if self.ended:
            change["$inc"] = {"jobs_processed": self.ended}
        return change


class WorkerNotes:
    """Gathers notes, by worker. What is gathered when the process dies is lost: counts are short by it, no more."""

    def __init__(self, workers: Collection) -> None:
        self._workers = workers
        self._notes: dict[str, _Note] = {}
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._cannot_wait = False

    def asked(self, worker: Worker, now: datetime) -> None:
        """Note that a worker asked for work."""
        self._of(worker.id).asked_at = now
        # When a worker of the course protocol asked, which has a name, says which jobs it still works on.
        self._cannot_wait |= worker.name is not None

    def reported(self, worker_id: str, *, ended: bool, blameless: bool) -> None:
        """Note that a worker's result was accepted, and whether that ended the job, without a fault of the worker's."""
        note = self._of(worker_id)
        note.ended += ended
        note.blameless |= blameless

    async def write(self, *, later: bool = False) -> None:
        """Write what was gathered, or do so a little later, with what is gathered until then."""
        if later and not self._cannot_wait:
            if self._notes and self._writing is None:
                self._writing = asyncio.create_task(self._write_later(), name="notes on workers")
            return
        notes, self._notes, self._cannot_wait = self._notes, {}, False
        changes = [
            UpdateOne({"_id": worker_id}, change) for worker_id, note in notes.items() if (change := note.change)
        ]
        if changes:
            await self._workers.bulk_write(changes, ordered=False)

    async def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        if self._writing is not None:
            await self._writing
        await self.write()

    async def _write_later(self) -> None:
        while self._notes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHERED_FOR):
                    await self._closing.wait()
            try:
                await self.write()
            except PyMongoError as error:  # perhaps it was written; to count twice would be worse than not at all
                logger.warning("what workers did in the last moments may not be counted: %s", error)
        self._writing = None

    def _of(self, worker_id: str) -> _Note:
        return self._notes.setdefault(worker_id, _Note())
