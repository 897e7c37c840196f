"""What several parts of the MongoDB store need."""

from __future__ import annotations

from collections.abc import Iterable

from broadway_api.domain import Job, LostJob
from broadway_api.store.mongo_bell import MongoBell
from broadway_api.store.mongo_broadcast import MongoBroadcast
from broadway_api.store.mongo_claims import MongoClaims
from broadway_api.store.mongo_documents import outcome, still_running
from broadway_api.store.mongo_engine import Collection, Document, MongoEngine
from broadway_api.store.mongo_exchange import MongoExchange
from broadway_api.store.mongo_logs import MongoLogs
from broadway_api.store.mongo_openings import MongoOpenings
from broadway_api.store.mongo_places import MongoPlaces
from broadway_api.store.mongo_ranks import MongoRanks
from broadway_api.store.mongo_read_ahead import ReadAhead
from broadway_api.store.mongo_results import MongoResults
from broadway_api.store.mongo_running import RunningJobs
from broadway_api.store.mongo_worker_notes import WorkerNotes


class MongoPart:
    """What the parts of the store share."""

    def __init__(self, engine: MongoEngine) -> None:
        self._engine = engine
        self._runs = engine.collection("runs")
        self._jobs = engine.collection("jobs")
        self._workers = engine.collection("workers")
        self._assignments = engine.collection("assignments")
        self._secrets = engine.collection("secrets")
        self._deliveries = engine.collection("deliveries")
        self._meta = engine.collection("meta")
        self._logs = MongoLogs(engine.collection("logs"))
        self._bell = MongoBell(engine)
        self._broadcast = MongoBroadcast(engine)
        self._ranks = MongoRanks(self._jobs, self._workers, engine.collection("courses"), self._meta)
        self._openings = MongoOpenings(self._jobs, self._runs, self._ranks)
        self._places = MongoPlaces(self._jobs, self._runs, engine.collection("frontiers"))
        self._notes = WorkerNotes(self._workers)
        running = RunningJobs()
        self._ahead = ReadAhead(self._jobs, self._workers, self._ranks, running)
        claims = MongoClaims(self._jobs, self._workers, self._places, running, self._ahead, self._notes)
        results = MongoResults(self._jobs, self._logs, self._bell, running, self._ahead, self._notes)
        self._exchange = MongoExchange(self._jobs, claims, results, self._notes)

    async def _end_attempt(self, before: Job, after: Job, guard: Document) -> bool:
        """Write what the end of an attempt makes of a job, if that attempt is still running; whether it was."""
        changed = await self._jobs.update_one({**still_running(before), **guard}, {"$set": outcome(after)})
        return changed.matched_count == 1

    async def _take_back(self, changes: Iterable[tuple[Job, Job, Document]]) -> list[LostJob]:
        """Write jobs as they are after their workers lost them: before, after, and what else guards the change."""
        lost = [
            LostJob(
                job_id=after.id,
                run_id=after.run_id,
                worker_id=before.worker_id or "",
                state=after.state,
                requirement=after.requirement,
            )
            for before, after, guard in changes
            if await self._end_attempt(before, after, guard)
        ]
        if lost:
            self._ahead.forget()
            await self._bell.ring()
        return lost


async def exists(collection: Collection, wanted: Document, *, hint: str | None = None) -> bool:
    return await collection.find_one(wanted, {"_id": True}, hint=hint) is not None
