"""The store in MongoDB, for any number of API processes. See `port.py` for what each method promises.

Each change is one write to one document, guarded by its filter; what a method does after it may be cut off anywhere
and is done again by asking again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from broadway_api import lifecycle
from broadway_api.domain import (
    Claim,
    FinishedJob,
    IdempotencyKey,
    Job,
    JobState,
    JobType,
    LostJob,
    Reason,
    Result,
    Run,
    RunProgress,
    RunState,
    RunSummary,
    StageLog,
    Worker,
)
from broadway_api.errors import (
    ClaimLost,
    IdempotencyMismatch,
    JobNotFound,
    RunAlreadyStarted,
    RunNotFound,
    UnknownWorker,
)
from broadway_api.store import records
from broadway_api.store.mongo_bell import MongoBell
from broadway_api.store.mongo_documents import (
    BY_STATE,
    HELD,
    INDEXES,
    QUEUE,
    SCHEMA_VERSION,
    UNFINISHED,
    job_from_document,
    job_to_document,
    outcome,
    run_from_document,
    run_to_document,
    worker_from_document,
    worker_to_document,
)
from broadway_api.store.mongo_engine import Collection, Document, MongoEngine, translate_errors
from broadway_api.store.mongo_logs import MongoLogs
from broadway_api.store.mongo_ranks import MongoRanks

#: Jobs to encode or decode at a time: some 20 ms of the event loop.
_BATCH = 500

_DUPLICATE_KEY = 11000


#: A worker that nothing speaks against.
_BLAMELESS = {"strikes": 0, "quarantined_until": None}


@translate_errors
class MongoStore:
    """A store in the database that `url` names."""

    def __init__(self, url: str) -> None:
        """Raises StoreUrlInvalid."""
        self._engine = MongoEngine(url, INDEXES, SCHEMA_VERSION)
        self._runs = self._engine.collection("runs")
        self._jobs = self._engine.collection("jobs")
        self._workers = self._engine.collection("workers")
        self._logs = MongoLogs(self._engine.collection("logs"))
        self._bell = MongoBell(self._engine.collection("meta"))
        self._ranks = MongoRanks(self._jobs, self._engine.collection("courses"), self._engine.collection("meta"))

    async def __aenter__(self) -> Self:
        try:
            await self._engine.open()
        except BaseException:
            await self._engine.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._bell.close()
        await self._engine.close()

    async def ping(self) -> None:
        await self._engine.ping()

    # --- runs ---------------------------------------------------------------------------------------------------

    async def create_run(self, run: Run, jobs: Sequence[Job], *, idempotency: IdempotencyKey | None = None) -> str:
        if idempotency and (earlier := await self._created_with(run.course, idempotency)):
            return earlier
        for start in range(0, len(jobs), _BATCH):
            await _insert_missing(self._jobs, [job_to_document(job) for job in jobs[start : start + _BATCH]])
        try:
            await self._runs.insert_one(run_to_document(run, idempotency))
        except DuplicateKeyError:  # this very call is a repeated one, or another one with this key was faster
            if not await _exists(self._runs, {"_id": run.id}):
                await self._jobs.delete_many({"run_id": run.id})
            if idempotency and (earlier := await self._created_with(run.course, idempotency)):
                return earlier
        return run.id

    async def start_run(self, run_id: str, first: RunState, now: datetime) -> None:
        changed = await self._runs.update_one(
            {"_id": run_id, "state": RunState.READY}, {"$set": {"state": first, "started_at": now, "unsettled": True}}
        )
        if not changed.matched_count:
            raise RunAlreadyStarted(run_id, (await self.run(run_id)).state)

    async def open_phase(self, run_id: str, job_type: JobType, now: datetime) -> int:
        waiting = {"run_id": run_id, "type": job_type, "state": JobState.WAITING}
        last = await self._jobs.find_one(waiting, {"seq": True}, sort=[("seq", -1)])
        if last is None:
            return 0
        rank = await self._ranks.reserve((await self.run(run_id)).course, run_id, job_type, last["seq"])
        opened = await self._jobs.update_many(
            waiting, [{"$set": {"state": JobState.QUEUED, "queued_at": now, "rank": rank}}]
        )
        await self._bell.ring()
        return opened.modified_count

    async def advance_run(self, run_id: str, *, leaving: RunState, to: RunState, now: datetime) -> bool:
        finished_at = now if to.ended else None
        changed = await self._runs.update_one(
            {"_id": run_id, "state": leaving}, {"$set": {"state": to, "finished_at": finished_at}}
        )
        return changed.matched_count == 1

    async def reopen_run(self, run_id: str, *, leaving: RunState, to: RunState) -> bool:
        changed = await self._runs.update_one(
            {"_id": run_id, "state": leaving, "settled": True},
            {"$set": {"state": to, "finished_at": None, "unsettled": True, "settled": False}},
        )
        return changed.matched_count == 1

    async def cancel_jobs(self, run_id: str, now: datetime) -> int:
        cancelled = {
            "state": JobState.CANCELLED,
            "ended": True,
            "reason": Reason.CANCELLED,
            "finished_at": now,
            "lease_expires_at": None,
        }
        changed = await self._jobs.update_many({"run_id": run_id, "ended": False}, {"$set": cancelled})
        return changed.modified_count

    async def retry_jobs(self, run_id: str, job_ids: Sequence[str], attempts: int) -> int:
        named = {"_id": {"$in": list(job_ids)}, "run_id": run_id}
        again = {
            "state": JobState.WAITING,
            "ended": False,
            "attempt_limit": {"$add": ["$attempt", attempts]},
            "info": records.to_text([]),
            **dict.fromkeys(("reason", "worker_id", "queued_at", "started_at", "finished_at")),
        }
        await self._jobs.update_many({**named, "ended": True}, [{"$set": again}])
        return await self._jobs.count_documents({**named, "state": JobState.WAITING})

    async def delete_runs(self, finished_before: datetime, limit: int) -> list[str]:
        old = {"settled": True, "finished_at": {"$lt": finished_before}}
        found = await self._runs.find(old, {"_id": True}).sort("finished_at").limit(limit).to_list()
        for run in found:
            async for job in self._jobs.find({"run_id": run["_id"]}, {"_id": True}):
                await self._logs.discard_all(job["_id"])
            await self._jobs.delete_many({"run_id": run["_id"]})
            await self._runs.delete_one({"_id": run["_id"], **old})
        return [run["_id"] for run in found]

    async def settle_run(self, run_id: str) -> None:
        ended = {"$in": [state for state in RunState if state.ended]}
        await self._runs.update_one({"_id": run_id, "state": ended}, {"$set": {"unsettled": False, "settled": True}})

    async def unsettled_runs(self) -> list[str]:
        return [run["_id"] async for run in self._runs.find({"unsettled": True}, {"_id": True}).sort("_id")]

    async def run_progress(self, run_id: str) -> RunProgress:
        run = await self.run(run_id)
        phase = lifecycle.PHASES.get(run.state)
        jobs = {"run_id": run_id, "type": phase}
        return RunProgress(
            run=run,
            unopened=phase is not None and await self._any_job({**jobs, "state": JobState.WAITING}, BY_STATE),
            unfinished=phase is not None and await self._any_job({**jobs, "ended": False}, UNFINISHED),
            failed=phase is not None
            and await self._any_job({**jobs, "state": {"$in": [JobState.FAILED, JobState.CANCELLED]}}, BY_STATE),
            leftover=await self._any_job({"run_id": run_id, "ended": False}, UNFINISHED),
        )

    async def run(self, run_id: str) -> Run:
        document = await self._runs.find_one({"_id": run_id})
        if document is None:
            raise RunNotFound(run_id)
        return run_from_document(document)

    async def run_summary(self, run_id: str) -> RunSummary:
        run = await self.run(run_id)
        counts = dict.fromkeys(JobState, 0)
        reasons: dict[Reason, int] = {}
        groups = await self._jobs.aggregate(
            [
                {"$match": {"run_id": run_id}},
                {"$group": {"_id": {"state": "$state", "reason": "$reason"}, "number": {"$sum": 1}}},
            ],
            hint=BY_STATE,
        )
        async for group in groups:
            state, reason = group["_id"]["state"], group["_id"].get("reason")
            counts[JobState(state)] += group["number"]
            if reason is not None:
                reasons[Reason(reason)] = reasons.get(Reason(reason), 0) + group["number"]
        ends = self._jobs.find({"run_id": run_id, "type": {"$in": [JobType.PRE_PROCESSING, JobType.POST_PROCESSING]}})
        by_type = {job.type: job for job in [job_from_document(document) async for document in ends]}
        return RunSummary(
            run=run,
            counts=counts,
            reasons=reasons,
            pre_processing_job=by_type.get(JobType.PRE_PROCESSING),
            post_processing_job=by_type.get(JobType.POST_PROCESSING),
        )

    async def runs(
        self, *, state: RunState | None = None, course: str | None = None, limit: int, after: str | None = None
    ) -> list[Run]:
        conditions = {"state": state, "course": course, "_id": after and {"$lt": after}}
        given = {name: value for name, value in conditions.items() if value is not None}
        return [run_from_document(document) async for document in self._runs.find(given).sort("_id", -1).limit(limit)]

    async def run_jobs(
        self, run_id: str, *, states: Sequence[JobState] = (), limit: int, after: int | None = None
    ) -> list[Job]:
        if not await _exists(self._runs, {"_id": run_id}):
            return []  # it may be half created: nothing of it is to be seen
        wanted: Document = {"run_id": run_id}
        if states:
            wanted["state"] = {"$in": list(states)}
        if after is not None:
            wanted["seq"] = {"$gt": after}
        found = self._jobs.find(wanted, {"attempts": False, "info": False}).sort("seq").limit(limit)
        return [job_from_document(document) async for document in found]

    async def roster(self, run_id: str) -> list[Mapping[str, Any]]:
        students = self._jobs.find({"run_id": run_id, "type": JobType.STUDENT}, {"student": True})
        in_order = students.sort("seq").batch_size(_BATCH)
        return [records.from_text(document["student"]) async for document in in_order]

    # --- workers ------------------------------------------------------------------------------------------------

    async def register_worker(self, worker: Worker) -> None:
        await self._workers.replace_one({"_id": worker.id}, worker_to_document(worker), upsert=True)

    async def heartbeat(
        self, worker_id: str, running: Sequence[Claim] | None, now: datetime, lease: timedelta
    ) -> list[str]:
        await self._see(worker_id, now)
        held: Document = {"worker_id": worker_id, "state": JobState.RUNNING}
        if running is not None:
            if not running:
                return []
            held["$or"] = [
                {"_id": claim.job_id, **({} if claim.attempt is None else {"attempt": claim.attempt})}
                for claim in running
            ]
        await self._jobs.update_many(held, {"$set": {"lease_expires_at": now + lease}})
        if running is None:
            return []
        kept = {document["_id"] async for document in self._jobs.find(held, {"_id": True})}
        return [claim.job_id for claim in running if claim.job_id not in kept]

    async def deregister_worker(self, worker_id: str, now: datetime) -> list[LostJob]:
        deleted = await self._workers.delete_one({"_id": worker_id})
        if not deleted.deleted_count:
            raise UnknownWorker(worker_id)
        held = await self._jobs.find({"worker_id": worker_id, "state": JobState.RUNNING}).to_list()
        return await self._take_back(
            (job, lifecycle.after_hand_back(job, now), {}) for job in map(job_from_document, held)
        )

    async def worker(self, worker_id: str) -> Worker:
        document = await self._workers.find_one({"_id": worker_id})
        if document is None:
            raise UnknownWorker(worker_id)
        return worker_from_document(document)

    async def set_draining(self, worker_id: str, draining: bool) -> None:
        fields = {"draining": draining} | ({} if draining else _BLAMELESS)
        changed = await self._workers.update_one({"_id": worker_id}, {"$set": fields})
        if not changed.matched_count:
            raise UnknownWorker(worker_id)

    async def strike_worker(self, worker_id: str, now: datetime, *, limit: int, pause: timedelta) -> Worker | None:
        while document := await self._workers.find_one({"_id": worker_id}):
            before = worker_from_document(document)
            after = lifecycle.after_strike(before, now, limit=limit, pause=pause)
            changed = await self._workers.update_one(
                {"_id": worker_id, "strikes": before.strikes},
                {"$set": {"strikes": after.strikes, "quarantined_until": after.quarantined_until}},
            )
            if changed.matched_count:
                return after
        return None

    async def workers(self) -> list[tuple[Worker, list[str]]]:
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
            if not await _exists(self._jobs, {"worker_id": worker["_id"], "state": JobState.RUNNING}):
                deleted = await self._workers.delete_one({"_id": worker["_id"], **silent})
                forgotten += deleted.deleted_count
        return forgotten

    # --- jobs ---------------------------------------------------------------------------------------------------

    async def claim_jobs(
        self, worker_id: str, n: int, now: datetime, lease: timedelta, *, holding: Sequence[str] = ()
    ) -> list[Job]:
        worker = await self._see(worker_id, now)
        claimed = await self._hand_out_again(worker_id, n, now + lease, holding)
        wanted = lifecycle.new_jobs_allowed(worker, n - len(claimed), len(claimed) + len(holding), now)
        for_others = {"avoid_worker_id": worker_id, "avoid_until": {"$gt": now}}
        for _ in range(wanted):
            job = await self._hand_out(worker_id, {"$nor": [for_others]}, now, now + lease)
            if job is None and await _exists(self._jobs, {"state": JobState.QUEUED, **for_others}, hint=QUEUE):
                others = {"_id": {"$ne": worker_id}, "last_seen": {"$gt": now - lease}}
                if not await _exists(self._workers, others):
                    job = await self._hand_out(worker_id, {}, now, now + lease)
            if job is None:
                break
            claimed.append(job)
        return claimed

    async def finish_job(self, claim: Claim, result: Result, now: datetime) -> FinishedJob:
        job = await self.job(claim.job_id)
        while _holds(claim, job):
            upload = await self._logs.upload(job.id, job.attempt, result.logs)
            after = lifecycle.after_result(job, result, now)
            if await self._end_attempt(job, after, fields={"upload": upload}):
                await asyncio.gather(
                    self._logs.discard_others(job.id, job.attempt, upload),
                    self._note_outcome(claim.worker_id, after, result),
                )
                return await self._finished(after, repeated=False)
            await self._logs.discard(job.id, upload)
            job = await self.job(claim.job_id)
        if not lifecycle.is_repeat(job, claim.worker_id, claim.attempt):
            raise ClaimLost(claim.job_id, claim.worker_id, claim.attempt)
        return await self._finished(job, repeated=True)

    async def expire_leases(self, now: datetime, lease: timedelta) -> list[LostJob]:
        latest = {"lease_expires_at": now + lease}
        await self._jobs.update_many(
            {"state": JobState.RUNNING, "lease_expires_at": {"$gt": now + lease}}, {"$set": latest}
        )
        over = {"lease_expires_at": {"$lte": now}}
        expired = await self._jobs.find({"state": JobState.RUNNING, **over}).sort("lease_expires_at").to_list()
        return await self._take_back(
            (job, lifecycle.after_lost_lease(job, now), over) for job in map(job_from_document, expired)
        )

    async def finished_elsewhere(self, run_id: str, worker_id: str) -> bool:
        blameless = [None, *(reason for reason in Reason if not reason.is_infrastructure)]
        ended = {"$in": [JobState.SUCCEEDED, JobState.FAILED]}
        by_others = {"state": ended, "reason": {"$in": blameless}, "worker_id": {"$ne": worker_id}}
        return await _exists(self._jobs, {"run_id": run_id, **by_others})

    async def job(self, job_id: str) -> Job:
        return job_from_document(await self._job_document(job_id))

    async def job_log(self, job_id: str, stage: int | None = None) -> list[StageLog]:
        upload = (await self._job_document(job_id)).get("upload")
        return [] if upload is None else await self._logs.read(job_id, upload, stage)

    async def queue_depth(self) -> int:
        return await self._jobs.count_documents({"state": JobState.QUEUED}, hint=QUEUE)

    # --- between processes --------------------------------------------------------------------------------------

    async def time(self) -> datetime:
        return await self._engine.time()

    async def jobs_queued_elsewhere(self) -> None:
        await self._bell.heard()

    # --- what several of them need -------------------------------------------------------------------------------

    async def _created_with(self, course: str, idempotency: IdempotencyKey) -> str | None:
        earlier = await self._runs.find_one({"course": course, "idempotency.key": idempotency.key}, {"idempotency": 1})
        if earlier is None:
            return None
        if earlier["idempotency"]["fingerprint"] != idempotency.fingerprint:
            raise IdempotencyMismatch(idempotency.key)
        return str(earlier["_id"])

    async def _any_job(self, wanted: Document, index: str) -> bool:
        return await _exists(self._jobs, wanted, hint=index)

    async def _see(self, worker_id: str, now: datetime) -> Worker:
        """Note that the worker was heard of; a clock that was set back does not make it look silent."""
        seen = await self._workers.find_one_and_update(
            {"_id": worker_id}, {"$max": {"last_seen": now}}, return_document=ReturnDocument.AFTER
        )
        if seen is None:
            raise UnknownWorker(worker_id)
        return worker_from_document(seen)

    async def _hand_out_again(self, worker_id: str, n: int, until: datetime, holding: Sequence[str]) -> list[Job]:
        """Jobs that the worker holds without knowing of them, with a new lease."""
        held = {"worker_id": worker_id, "state": JobState.RUNNING}
        found = self._jobs.find({**held, "_id": {"$nin": list(holding)}}, {"attempt": True})
        unanswered = [
            await self._jobs.find_one_and_update(
                {"_id": job["_id"], "attempt": job["attempt"], **held},
                {"$set": {"lease_expires_at": until}},
                return_document=ReturnDocument.AFTER,
            )
            for job in (await found.sort([("rank", 1), ("_id", 1)]).to_list())[:n]
        ]
        return [job_from_document(document) for document in unanswered if document is not None]

    async def _hand_out(self, worker_id: str, which: Document, now: datetime, until: datetime) -> Job | None:
        """The first such job of the queue, now the worker's."""
        document = await self._jobs.find_one_and_update(
            {"state": JobState.QUEUED, **which},
            {
                "$set": {
                    "state": JobState.RUNNING,
                    "worker_id": worker_id,
                    "lease_expires_at": until,
                    "started_at": now,
                },
                "$inc": {"attempt": 1},
            },
            sort=[("rank", 1), ("_id", 1)],
            hint=QUEUE,
            return_document=ReturnDocument.AFTER,
        )
        return None if document is None else job_from_document(document)

    async def _end_attempt(
        self, before: Job, after: Job, *, guard: Document | None = None, fields: Document | None = None
    ) -> bool:
        """Write what the end of an attempt makes of a job, if that attempt is still running; whether it was."""
        changed = await self._jobs.update_one(
            {
                "_id": before.id,
                "state": JobState.RUNNING,
                "worker_id": before.worker_id,
                "attempt": before.attempt,
                **(guard or {}),
            },
            {"$set": {**outcome(after), **(fields or {})}},
        )
        return changed.matched_count == 1

    async def _take_back(self, changes: Iterable[tuple[Job, Job, Document]]) -> list[LostJob]:
        """Write jobs as they are after their workers lost them: before, after, and what else guards the change."""
        lost = [
            LostJob(job_id=after.id, run_id=after.run_id, worker_id=before.worker_id or "", state=after.state)
            for before, after, guard in changes
            if await self._end_attempt(before, after, guard=guard)
        ]
        if lost:
            await self._bell.ring()
        return lost

    async def _note_outcome(self, worker_id: str, job: Job, result: Result) -> None:
        """Count an ended job for its worker, and clear the worker of blame: short by one if the process dies here."""
        change: Document = {"$inc": {"jobs_processed": int(job.state.ended)}}
        if not (result.reason and result.reason.is_infrastructure):
            change["$set"] = _BLAMELESS
        await self._workers.update_one({"_id": worker_id}, change)
        if job.state is JobState.QUEUED:
            await self._bell.ring()

    async def _finished(self, job: Job, *, repeated: bool) -> FinishedJob:
        unfinished = await self._any_job({"run_id": job.run_id, "type": job.type, "ended": False}, UNFINISHED)
        return FinishedJob(job=job, phase_over=not unfinished, repeated=repeated)

    async def _job_document(self, job_id: str) -> Document:
        document = await self._jobs.find_one({"_id": job_id})
        if document is None:
            raise JobNotFound(job_id)
        return document


def _holds(claim: Claim, job: Job) -> bool:
    return job.state is JobState.RUNNING and job.worker_id == claim.worker_id and claim.attempt in (None, job.attempt)


async def _exists(collection: Collection, wanted: Document, *, hint: str | None = None) -> bool:
    return await collection.find_one(wanted, {"_id": True}, hint=hint) is not None


async def _insert_missing(collection: Collection, documents: Sequence[Document]) -> None:
    """Insert documents; those that are there already were written by an earlier try of the same call."""
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        others = [fault for fault in error.details["writeErrors"] if fault["code"] != _DUPLICATE_KEY]
        if others or error.details["writeConcernErrors"]:
            raise
