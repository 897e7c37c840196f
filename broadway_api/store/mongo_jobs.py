"""Jobs in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from broadway_api import lifecycle
from broadway_api.domain import Claim, FinishedJob, Job, JobState, LostJob, Reason, Result, StageLog
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.mongo_documents import BY_STATE, LEASES, UNFINISHED, job_from_document
from broadway_api.store.mongo_engine import Document, translate_errors
from broadway_api.store.mongo_part import BLAMELESS, MongoPart, exists


@translate_errors
class MongoJobs(MongoPart):
    """Jobs: ended, taken back, read."""

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

    async def finish_jobs(
        self, results: Sequence[tuple[Claim, Result]], now: datetime
    ) -> list[FinishedJob | ClaimLost | JobNotFound]:
        async def finish_or_refuse(claim: Claim, result: Result) -> FinishedJob | ClaimLost | JobNotFound:
            try:
                return await self.finish_job(claim, result, now)
            except (ClaimLost, JobNotFound) as refusal:
                return refusal

        return await asyncio.gather(*(finish_or_refuse(claim, result) for claim, result in results))

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
