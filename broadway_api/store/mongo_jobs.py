"""The queue of the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument

from broadway_api import lifecycle
from broadway_api.domain import Claim, FinishedJob, Job, JobState, LostJob, Reason, Result, StageLog
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.mongo_documents import BY_STATE, LEASES, QUEUE, UNFINISHED, job_from_document
from broadway_api.store.mongo_engine import Document, translate_errors
from broadway_api.store.mongo_part import BLAMELESS, MongoPart, exists


@translate_errors
class MongoJobs(MongoPart):
    """Jobs: handed out, ended, taken back, read."""

    async def claim_jobs(
        self, worker_id: str, n: int, now: datetime, lease: timedelta, *, holding: Sequence[str] = ()
    ) -> list[Job]:
        worker = await self._see(worker_id, now, asked=True)
        claimed = await self._hand_out_again(worker_id, n, now + lease, holding)
        wanted = lifecycle.new_jobs_allowed(worker, n - len(claimed), len(claimed) + len(holding), now)
        for_others = {"avoid_worker_id": worker_id, "avoid_until": {"$gt": now}}
        for _ in range(wanted):
            job = await self._hand_out(worker_id, {"$nor": [for_others]}, now, now + lease)
            if job is None and await exists(self._jobs, {"state": JobState.QUEUED, **for_others}, hint=QUEUE):
                others = {"_id": {"$ne": worker_id}, "last_seen": {"$gt": now - lease}}
                if not await exists(self._workers, others):
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
            {"state": JobState.RUNNING, "lease_expires_at": {"$gt": now + lease}}, {"$set": latest}, hint=LEASES
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
        return await exists(self._jobs, {"run_id": run_id, **by_others}, hint=BY_STATE)

    async def job(self, job_id: str) -> Job:
        return job_from_document(await self._job_document(job_id))

    async def job_log(self, job_id: str, stage: int | None = None) -> list[StageLog]:
        upload = (await self._job_document(job_id)).get("upload")
        return [] if upload is None else await self._logs.read(job_id, upload, stage)

    async def queue_depth(self, limit: int | None = None) -> int:
        bound: dict[str, Any] = {} if limit is None else {"limit": limit}
        return await self._jobs.count_documents({"state": JobState.QUEUED}, hint=QUEUE, **bound)

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

    async def _note_outcome(self, worker_id: str, job: Job, result: Result) -> None:
        """Count an ended job for its worker, and clear the worker of blame: short by one if the process dies here."""
        change: Document = {"$inc": {"jobs_processed": int(job.state.ended)}}
        if not (result.reason and result.reason.is_infrastructure):
            change["$set"] = BLAMELESS
        await self._workers.update_one({"_id": worker_id}, change)
        if job.state is JobState.QUEUED:
            await self._bell.ring()

    async def _finished(self, job: Job, *, repeated: bool) -> FinishedJob:
        unfinished = await exists(self._jobs, {"run_id": job.run_id, "type": job.type, "ended": False}, hint=UNFINISHED)
        return FinishedJob(job=job, phase_over=not unfinished, repeated=repeated)

    async def _job_document(self, job_id: str) -> Document:
        document = await self._jobs.find_one({"_id": job_id})
        if document is None:
            raise JobNotFound(job_id)
        return document


def _holds(claim: Claim, job: Job) -> bool:
    return job.state is JobState.RUNNING and job.worker_id == claim.worker_id and claim.attempt in (None, job.attempt)
