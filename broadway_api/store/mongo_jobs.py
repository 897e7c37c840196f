"""Jobs in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from broadway_api import lifecycle
from broadway_api.domain import Claim, FinishedJob, Job, JobState, LostJob, Reason, Result, StageLog
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.mongo_claims import Ask
from broadway_api.store.mongo_documents import BY_STATE, LEASES, job_from_document
from broadway_api.store.mongo_engine import Document, translate_errors
from broadway_api.store.mongo_logs import read_within_job
from broadway_api.store.mongo_part import MongoPart, exists
from broadway_api.store.mongo_results import Report


@translate_errors
class MongoJobs(MongoPart):
    """Jobs: ended, taken back, read."""

    async def finish_job(self, claim: Claim, result: Result, now: datetime) -> FinishedJob:
        (answer,) = await self._exchange.finish([Report(claim=claim, result=result, now=now)])
        if isinstance(answer, FinishedJob):
            return answer
        raise answer

    async def finish_jobs(
        self, results: Sequence[tuple[Claim, Result]], now: datetime
    ) -> list[FinishedJob | ClaimLost | JobNotFound]:
        return await self._exchange.finish([Report(claim=claim, result=result, now=now) for claim, result in results])

    async def exchange(
        self,
        worker_id: str,
        results: Sequence[tuple[Claim, Result]],
        n: int,
        now: datetime,
        lease: timedelta,
        *,
        holding: Sequence[str] = (),
    ) -> tuple[list[FinishedJob | ClaimLost | JobNotFound], list[Job]]:
        ask = Ask(worker_id=worker_id, n=n, now=now, lease=lease, holding=holding)
        reports = [Report(claim=claim, result=result, now=now) for claim, result in results]
        return await self._exchange.exchange(reports, ask)

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
        job = await self._job_document(job_id)
        if job.get("log") is not None:
            return read_within_job(job["log"], stage)
        upload = job.get("upload")
        return [] if upload is None else await self._logs.read(job_id, upload, stage)

    async def _job_document(self, job_id: str) -> Document:
        document = await self._jobs.find_one({"_id": job_id})
        if document is None:
            raise JobNotFound(job_id)
        return document
