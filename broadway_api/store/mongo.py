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

_WAITING_OR_QUEUED = {"$in": [JobState.WAITING, JobState.QUEUED]}


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
        self._ranks = MongoRanks(self._jobs, self._engine.collection("courses"), self._engine.collection("meta"))

    async def __aenter__(self) -> Self:
        try:
            await self._engine.open()
        except BaseException:
            await self._engine.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
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
        return opened.modified_count

    async def advance_run(self, run_id: str, *, leaving: RunState, to: RunState, now: datetime) -> bool:
        finished_at = now if to.ended else None
        changed = await self._runs.update_one(
            {"_id": run_id, "state": leaving}, {"$set": {"state": to, "finished_at": finished_at}}
        )
        return changed.matched_count == 1

    async def cancel_jobs(self, run_id: str, now: datetime) -> int:
        cancelled = {"state": JobState.CANCELLED, "ended": True, "reason": Reason.CANCELLED, "finished_at": now}
        changed = await self._jobs.update_many({"run_id": run_id, "state": _WAITING_OR_QUEUED}, {"$set": cancelled})
        return changed.modified_count

    async def settle_run(self, run_id: str) -> None:
        await self._runs.update_one({"_id": run_id}, {"$set": {"unsettled": False}})

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
            leftover=await self._any_job({"run_id": run_id, "ended": False, "state": _WAITING_OR_QUEUED}, UNFINISHED),
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
        await self._see(worker_id, now)
        claimed = await self._hand_out_again(worker_id, n, now + lease, holding)
        while len(claimed) < n:
            job = await self._hand_out(worker_id, now, now + lease)
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
                    self._logs.discard_others(job.id, job.attempt, upload), self._count(claim.worker_id, after)
                )
                return await self._finished(after)
            await self._logs.discard(job.id, upload)
            job = await self.job(claim.job_id)
        if not lifecycle.is_repeat(job, claim.worker_id, claim.attempt):
            raise ClaimLost(claim.job_id, claim.worker_id, claim.attempt)
        return await self._finished(job)

    async def expire_leases(self, now: datetime) -> list[LostJob]:
        over = {"lease_expires_at": {"$lte": now}}
        expired = await self._jobs.find({"state": JobState.RUNNING, **over}).sort("lease_expires_at").to_list()
        return await self._take_back(
            (job, lifecycle.after_lost_lease(job, now), over) for job in map(job_from_document, expired)
        )

    async def job(self, job_id: str) -> Job:
        return job_from_document(await self._job_document(job_id))

    async def job_log(self, job_id: str, stage: int | None = None) -> list[StageLog]:
        upload = (await self._job_document(job_id)).get("upload")
        return [] if upload is None else await self._logs.read(job_id, upload, stage)

    async def queue_depth(self) -> int:
        return await self._jobs.count_documents({"state": JobState.QUEUED}, hint=QUEUE)

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

    async def _see(self, worker_id: str, now: datetime) -> None:
        """Note that the worker was heard of; a clock that was set back does not make it look silent."""
        seen = await self._workers.update_one({"_id": worker_id}, {"$max": {"last_seen": now}})
        if not seen.matched_count:
            raise UnknownWorker(worker_id)

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

    async def _hand_out(self, worker_id: str, now: datetime, until: datetime) -> Job | None:
        """The first job of the queue, now the worker's."""
        document = await self._jobs.find_one_and_update(
            {"state": JobState.QUEUED},
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
        return [
            LostJob(job_id=after.id, run_id=after.run_id, worker_id=before.worker_id or "", state=after.state)
            for before, after, guard in changes
            if await self._end_attempt(before, after, guard=guard)
        ]

    async def _count(self, worker_id: str, job: Job) -> None:
        """Count an ended job for its worker: a statistic, short by one if the process dies here."""
        if job.state.ended:
            await self._workers.update_one({"_id": worker_id}, {"$inc": {"jobs_processed": 1}})

    async def _finished(self, job: Job) -> FinishedJob:
        unfinished = await self._any_job({"run_id": job.run_id, "type": job.type, "ended": False}, UNFINISHED)
        return FinishedJob(job=job, phase_over=not unfinished)

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
