"""Runs in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from broadway_api import lifecycle
from broadway_api.domain import IdempotencyKey, Job, JobState, JobType, Reason, Run, RunProgress, RunState, RunSummary
from broadway_api.errors import IdempotencyMismatch, RunAlreadyStarted, RunNotFound
from broadway_api.store import records
from broadway_api.store.mongo_documents import (
    BY_END,
    BY_RUN,
    BY_STATE,
    UNFINISHED,
    job_from_document,
    job_to_document,
    run_from_document,
    run_to_document,
)
from broadway_api.store.mongo_engine import Collection, Document, translate_errors
from broadway_api.store.mongo_part import MongoPart, exists

#: Jobs to encode or decode at a time: some 20 ms of the event loop.
_BATCH = 500

_DUPLICATE_KEY = 11000


@translate_errors
class MongoRuns(MongoPart):
    """Runs: made, moved on, tried again, read, deleted."""

    async def create_run(self, run: Run, jobs: Sequence[Job], *, idempotency: IdempotencyKey | None = None) -> str:
        if idempotency and (earlier := await self._created_with(run.course, idempotency)):
            return earlier
        for start in range(0, len(jobs), _BATCH):
            await _insert_missing(self._jobs, [job_to_document(job) for job in jobs[start : start + _BATCH]])
        try:
            await self._runs.insert_one(run_to_document(run, idempotency))
        except DuplicateKeyError:  # this very call is a repeated one, or another one with this key was faster
            if not await exists(self._runs, {"_id": run.id}):
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
        opened = await self._openings.open(await self._run_document(run_id), job_type, now)
        if opened:
            self._ahead.forget()
            await self._bell.ring()
        return opened

    async def advance_run(self, run_id: str, *, leaving: RunState, to: RunState, now: datetime) -> bool:
        finished_at = now if to.ended else None
        changed = await self._runs.update_one(
            {"_id": run_id, "state": leaving}, {"$set": {"state": to, "finished_at": finished_at, "unsettled": True}}
        )
        return changed.matched_count == 1

    async def cancel_jobs(self, run_id: str, now: datetime) -> int:
        ended = await self._runs.find_one_and_update(
            {"_id": run_id, "state": {"$in": [state for state in RunState if state.ended]}},
            {"$set": {"withdrawn": True}},
            {"generation": True},
        )
        if ended is None:
            return 0
        cut_short = {
            "number": "$attempt",
            "worker_id": "$worker_id",
            "reason": Reason.CANCELLED,
            "started_at": "$started_at",
            "finished_at": now,
            "reported": False,
        }
        was_running = {"$eq": ["$state", JobState.RUNNING]}
        cancelled = {
            "state": JobState.CANCELLED,
            "ended": True,
            "reason": Reason.CANCELLED,
            "finished_at": now,
            "lease_expires_at": None,
            "attempts": {"$cond": [was_running, {"$concatArrays": ["$attempts", [cut_short]]}, "$attempts"]},
        }
        # A retry may begin at this very moment: what it made to wait again is of a later generation.
        later = {"$gt": ended.get("generation", 0)}
        unfinished = {"run_id": run_id, "ended": False, "generation": {"$not": later}}
        changed = await self._jobs.update_many(unfinished, [{"$set": cancelled}], hint=UNFINISHED)
        return changed.modified_count

    async def retry_jobs(
        self, run_id: str, job_ids: Sequence[str], attempts: int, *, leaving: RunState, to: RunState
    ) -> bool:
        reopened = await self._runs.find_one_and_update(
            {"_id": run_id, "state": leaving, "settled": True},
            {
                "$set": {
                    "state": to,
                    "finished_at": None,
                    "unsettled": True,
                    "settled": False,
                    "retry": {"jobs": list(job_ids), "attempts": attempts},
                },
                "$unset": {"openings": True, "withdrawn": True},
                "$inc": {"generation": 1},
            },
            return_document=ReturnDocument.AFTER,
        )
        if reopened is None:
            return False
        await self._finish_retry(reopened)
        return True

    async def _finish_retry(self, run: Document) -> None:
        """Make the jobs wait that a run was reopened for; a crash may have come between.

        Whoever does so late, when others have done it and some of these jobs have run again, finds that they are of
        the run's generation, and leaves them alone.
        """
        if "retry" not in run:
            return
        again = {
            "state": JobState.WAITING,
            "ended": False,
            "generation": run["generation"],
            "attempt_limit": {"$add": ["$attempt", run["retry"]["attempts"]]},
            "info": records.to_text([]),
            **dict.fromkeys(("reason", "worker_id", "queued_at", "started_at", "finished_at")),
            **dict.fromkeys(("avoid_worker_id", "avoid_until", "score", "max_score", "results")),
            "cause": "",
            "said": "",
        }
        earlier = {"$not": {"$gte": run["generation"]}}
        which = {"_id": {"$in": run["retry"]["jobs"]}, "run_id": run["_id"], "ended": True, "generation": earlier}
        await self._jobs.update_many(which, [{"$set": again}])
        await self._runs.update_one({"_id": run["_id"], "generation": run["generation"]}, {"$unset": {"retry": True}})

    async def is_settled(self, run_id: str) -> bool:
        return await exists(self._runs, {"_id": run_id, "settled": True})

    async def delete_runs(self, finished_before: datetime, limit: int) -> list[str]:
        old = {"settled": True, "finished_at": {"$lt": finished_before}}
        found = await self._runs.find(old, {"_id": True}).sort("finished_at").hint(BY_END).limit(limit).to_list()
        for run in found:
            jobs = await self._jobs.find({"run_id": run["_id"]}, {"_id": True}, hint=BY_RUN).to_list()
            for start in range(0, len(jobs), _BATCH):
                await self._logs.discard_all([job["_id"] for job in jobs[start : start + _BATCH]])
            await self._jobs.delete_many({"run_id": run["_id"]}, hint=BY_RUN)
            await self._runs.delete_one({"_id": run["_id"], **old})
        return [run["_id"] for run in found]

    async def forget_half_created(self, created_before: datetime) -> int:
        # Of each run that has unfinished jobs one key is read; its id tells when it was made.
        forgotten, run_id, latest = 0, "", str(ObjectId.from_datetime(created_before))
        while job := await self._jobs.find_one(
            {"ended": False, "run_id": {"$gt": run_id, "$lt": latest}},
            {"run_id": True},
            sort=[("run_id", 1)],
            hint=UNFINISHED,
        ):
            run_id = job["run_id"]
            if not await exists(self._runs, {"_id": run_id}):
                forgotten += (await self._jobs.delete_many({"run_id": run_id}, hint=BY_RUN)).deleted_count
        return forgotten

    async def settle_run(self, run_id: str) -> None:
        ended = {"$in": [state for state in RunState if state.ended]}
        await self._runs.update_one({"_id": run_id, "state": ended}, {"$set": {"unsettled": False, "settled": True}})

    async def unsettled_runs(self) -> list[str]:
        return [run["_id"] async for run in self._runs.find({"unsettled": True}, {"_id": True}).sort("_id")]

    async def run_progress(self, run_id: str) -> RunProgress:
        document = await self._run_document(run_id)
        await self._finish_retry(document)
        await self._openings.finish(document)
        run = run_from_document(document)
        phase = lifecycle.PHASES.get(run.state)
        jobs = {"run_id": run_id, "type": phase}
        return RunProgress(
            run=run,
            unopened=phase is not None and await exists(self._jobs, {**jobs, "state": JobState.WAITING}, hint=BY_STATE),
            unfinished=phase is not None and await exists(self._jobs, {**jobs, "ended": False}, hint=UNFINISHED),
            failed=phase is not None
            and await exists(
                self._jobs, {**jobs, "state": {"$in": [JobState.FAILED, JobState.CANCELLED]}}, hint=BY_STATE
            ),
            leftover=await exists(self._jobs, {"run_id": run_id, "ended": False}, hint=UNFINISHED),
        )

    async def run(self, run_id: str) -> Run:
        return run_from_document(await self._run_document(run_id))

    async def _run_document(self, run_id: str) -> Document:
        document = await self._runs.find_one({"_id": run_id})
        if document is None:
            raise RunNotFound(run_id)
        return document

    async def run_summary(self, run_id: str) -> RunSummary:
        run = await self.run(run_id)
        counts = dict.fromkeys(JobState, 0)
        reasons: dict[Reason, int] = {}
        queued: dict[JobType, int] = {}
        groups = await self._jobs.aggregate(
            [
                {"$match": {"run_id": run_id}},
                {"$group": {"_id": {"state": "$state", "type": "$type", "reason": "$reason"}, "number": {"$sum": 1}}},
            ],
            hint=BY_STATE,
        )
        async for group in groups:
            state, reason = group["_id"]["state"], group["_id"].get("reason")
            counts[JobState(state)] += group["number"]
            if state == JobState.QUEUED:
                queued[JobType(group["_id"]["type"])] = group["number"]
            if reason is not None:
                reasons[Reason(reason)] = reasons.get(Reason(reason), 0) + group["number"]
        ends = self._jobs.find({"run_id": run_id, "type": {"$in": [JobType.PRE_PROCESSING, JobType.POST_PROCESSING]}})
        by_type = {job.type: job for job in [job_from_document(document) async for document in ends]}
        return RunSummary(
            run=run,
            counts=counts,
            reasons=reasons,
            queued=queued,
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
        if not await exists(self._runs, {"_id": run_id}):
            return []  # it may be half created: nothing of it is to be seen
        wanted: Document = {"run_id": run_id}
        if states:
            wanted["state"] = {"$in": list(states)}
        if after is not None:
            wanted["seq"] = {"$gt": after}
        found = (
            self._jobs.find(wanted, {"attempts": False, "info": False, "results": False, "log": False})
            .sort("seq")
            .limit(limit)
        )
        return [job_from_document(document) async for document in found]

    async def roster(self, run_id: str) -> list[Mapping[str, Any]]:
        students = self._jobs.find({"run_id": run_id, "type": JobType.STUDENT}, {"student": True})
        in_order = students.sort("seq").batch_size(_BATCH)
        return [records.from_text(document["student"]) async for document in in_order]

    async def _created_with(self, course: str, idempotency: IdempotencyKey) -> str | None:
        earlier = await self._runs.find_one({"course": course, "idempotency.key": idempotency.key}, {"idempotency": 1})
        if earlier is None:
            return None
        if earlier["idempotency"]["fingerprint"] != idempotency.fingerprint:
            raise IdempotencyMismatch(idempotency.key)
        return str(earlier["_id"])


async def _insert_missing(collection: Collection, documents: Sequence[Document]) -> None:
    """Insert documents; those that are there already were written by an earlier try of the same call."""
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        others = [fault for fault in error.details["writeErrors"] if fault["code"] != _DUPLICATE_KEY]
        if others or error.details["writeConcernErrors"]:
            raise
