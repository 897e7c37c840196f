"""Workers in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pymongo.errors import DuplicateKeyError

from broadway_api import lifecycle
from broadway_api.domain import Claim, Job, JobState, LostJob, Worker
from broadway_api.errors import UnknownWorker, WorkerNameTaken
from broadway_api.store.mongo_documents import (
    BLAMELESS,
    HELD,
    job_from_document,
    worker_from_document,
    worker_to_document,
)
from broadway_api.store.mongo_engine import Document, translate_errors
from broadway_api.store.mongo_part import MongoPart, exists


@translate_errors
class MongoWorkers(MongoPart):
    """Workers: admitted, heard of, kept from work, forgotten."""

    async def register_worker(self, worker: Worker) -> None:
        try:
            await self._workers.replace_one({"_id": worker.id}, worker_to_document(worker), upsert=True)
        except DuplicateKeyError:
            if worker.name is None:
                raise
            raise WorkerNameTaken(worker.name) from None

    async def heartbeat(
        self, worker_id: str, running: Sequence[Claim] | None, now: datetime, lease: timedelta
    ) -> list[str]:
        # A clock that was set back does not make a worker look silent.
        seen = await self._workers.update_one({"_id": worker_id}, {"$max": {"last_seen": now}})
        if not seen.matched_count:
            raise UnknownWorker(worker_id)
        held: Document = {"worker_id": worker_id, "state": JobState.RUNNING}
        if running is not None:
            if not running:
                return []
            held["$or"] = [
                {"_id": claim.job_id, **({} if claim.attempt is None else {"attempt": claim.attempt})}
                for claim in running
            ]
        renewed = await self._jobs.update_many(held, {"$set": {"lease_expires_at": now + lease}})
        if running is None or renewed.matched_count == len({claim.job_id for claim in running}):
            return []
        kept = {document["_id"] async for document in self._jobs.find(held, {"_id": True})}
        return [claim.job_id for claim in running if claim.job_id not in kept]

    async def deregister_worker(self, worker_id: str, now: datetime, *, crashed: bool = False) -> list[LostJob]:
        deleted = await self._workers.delete_one({"_id": worker_id})
        self._ahead.forget()
        if not deleted.deleted_count:
            raise UnknownWorker(worker_id)
        held = await self._jobs.find({"worker_id": worker_id, "state": JobState.RUNNING}).to_list()
        end = lifecycle.after_lost_lease if crashed else lifecycle.after_hand_back
        return await self._take_back((job, end(job, now), {}) for job in map(job_from_document, held))

    async def worker(self, worker_id: str) -> Worker:
        await self._notes.write()
        document = await self._workers.find_one({"_id": worker_id})
        if document is None:
            raise UnknownWorker(worker_id)
        return worker_from_document(document)

    async def worker_named(self, name: str) -> Worker:
        await self._notes.write()
        document = await self._workers.find_one({"name": name})
        if document is None:
            raise UnknownWorker(name)
        return worker_from_document(document)

    async def held_jobs(self, worker_id: str) -> list[Job]:
        held = self._jobs.find({"worker_id": worker_id, "state": JobState.RUNNING}, hint=HELD)
        return [job_from_document(document) async for document in held.sort([("started_at", 1), ("_id", 1)])]

    async def set_draining(self, worker_id: str, draining: bool) -> None:
        fields = {"draining": draining} | ({} if draining else BLAMELESS)
        changed = await self._workers.update_one({"_id": worker_id}, {"$set": fields})
        self._ahead.forget()
        if not changed.matched_count:
            raise UnknownWorker(worker_id)

    async def strike_worker(self, worker_id: str, now: datetime, *, limit: int, pause: timedelta) -> Worker | None:
        await self._notes.write()  # what it did before counts before
        while document := await self._workers.find_one({"_id": worker_id}):
            before = worker_from_document(document)
            after = lifecycle.after_strike(before, now, limit=limit, pause=pause)
            changed = await self._workers.update_one(
                {"_id": worker_id, "strikes": before.strikes, "quarantined_until": before.quarantined_until},
                {"$set": {"strikes": after.strikes, "quarantined_until": after.quarantined_until}},
            )
            if changed.matched_count:
                self._ahead.forget()
                return after
        return None

    async def workers(self) -> list[tuple[Worker, list[str]]]:
        await self._notes.write()
        held: dict[str, list[str]] = {}
        jobs = await self._jobs.find({"state": JobState.RUNNING}, {"worker_id": True}, hint=HELD).to_list()
        for job in sorted(jobs, key=lambda job: str(job["_id"])):
            held.setdefault(job["worker_id"], []).append(job["_id"])
        found = self._workers.find().sort([("hostname", 1), ("_id", 1)])
        return [(worker_from_document(document), held.get(document["_id"], [])) async for document in found]

    async def forget_workers(self, seen_before: datetime) -> int:
        silent = {"last_seen": {"$lt": seen_before}}
        forgotten = 0
        async for worker in self._workers.find(silent, {"_id": True}):
            if not await exists(self._jobs, {"worker_id": worker["_id"], "state": JobState.RUNNING}):
                deleted = await self._workers.delete_one({"_id": worker["_id"], **silent})
                forgotten += deleted.deleted_count
        return forgotten
