"""Results on MongoDB: those that arrive at one process together are accepted by a few commands for all of them.

What the stages printed is written before, or, if it is short, by the very write that accepts the result.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pymongo import UpdateOne

from broadway_api import lifecycle
from broadway_api.domain import Claim, FinishedJob, Job, JobState, JobType, Result
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.mongo_batches import Batches
from broadway_api.store.mongo_bell import MongoBell
from broadway_api.store.mongo_documents import BLAMELESS, UNFINISHED, job_from_document, outcome, still_running
from broadway_api.store.mongo_engine import Collection, Document
from broadway_api.store.mongo_logs import MongoLogs, is_short, new_upload, within_job

Answer = FinishedJob | ClaimLost | JobNotFound


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One result, as it was posted."""

    claim: Claim
    result: Result
    now: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """What a report makes of its job, should that still run as it was read."""

    report: Report
    before: Job
    after: Job
    upload: str  # also tells, afterwards, whether it was this very report that was accepted

    @property
    def may_follow_uploads(self) -> bool:
        """Whether there may be logs of earlier attempts, or of this one by a process that died."""
        return self.before.attempt > 1 or not is_short(self.report.result.logs)


class MongoResults:
    """Accepts results."""

    def __init__(self, jobs: Collection, workers: Collection, logs: MongoLogs, bell: MongoBell) -> None:
        self._jobs = jobs
        self._workers = workers
        self._logs = logs
        self._bell = bell
        self._batches: Batches[Report, Answer] = Batches(self._serve, name="results", at_once=2)

    async def finish(self, report: Report) -> Answer:
        """What the result led to, or why it was refused."""
        return await self._batches.ask(report)

    async def close(self) -> None:
        """Finish what was asked for."""
        await self._batches.close()

    async def _serve(self, reports: Sequence[Report]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        while rest := {number: report for number, report in enumerate(reports) if number not in answers}:
            jobs = await self._read({report.claim.job_id for report in rest.values()})
            endings: dict[int, Ending] = {}
            for number, report in rest.items():
                job = jobs.get(report.claim.job_id)
                if job is None:
                    answers[number] = JobNotFound(report.claim.job_id)
                elif not _holds(report.claim, job):
                    answers[number] = _repeated_or_lost(report.claim, job)
                elif all(job is not other.before for other in endings.values()):  # else it sees what that one did
                    after = lifecycle.after_result(job, report.result, report.now)
                    endings[number] = Ending(report=report, before=job, after=after, upload=new_upload())
            accepted = await self._accept(list(endings.values()))
            for number, ending in endings.items():
                if ending.upload in accepted:
                    answers[number] = FinishedJob(job=ending.after, phase_over=False)
        over = await self._phases_over(answers.values())
        return [_with_phase(answers[number], over) for number in range(len(reports))]

    async def _read(self, job_ids: Iterable[str]) -> Mapping[str, Job]:
        found = await self._jobs.find({"_id": {"$in": list(job_ids)}}, {"log": False}).to_list()
        return {document["_id"]: job_from_document(document) for document in found}

    async def _accept(self, endings: Sequence[Ending]) -> set[str]:
        """Write what ended, each part guarded by its attempt; return the uploads of what was accepted."""
        if not endings:
            return set()
        logs = await asyncio.gather(*(self._kept_log(ending) for ending in endings))
        changes = [
            UpdateOne(still_running(ending.before), {"$set": {**outcome(ending.after), **log}})
            for ending, log in zip(endings, logs, strict=True)
        ]
        written = await self._jobs.bulk_write(changes, ordered=False)
        accepted = {ending.upload for ending in endings}
        if written.modified_count < len(endings):
            ids = [ending.before.id for ending in endings]
            now_kept = self._jobs.find({"_id": {"$in": ids}}, {"_id": False, "upload": True})
            accepted &= {job.get("upload") async for job in now_kept}
        await asyncio.gather(
            self._credit([ending for ending in endings if ending.upload in accepted]),
            *(
                self._logs.discard_others(ending.before.id, ending.before.attempt, ending.upload)
                if ending.upload in accepted
                else self._logs.discard(ending.before.id, ending.upload)
                for ending in endings
                if ending.may_follow_uploads
            ),
        )
        return accepted

    async def _kept_log(self, ending: Ending) -> Document:
        """The fields of a job that lead to what its stages printed."""
        logs = ending.report.result.logs
        if is_short(logs):
            return {"upload": ending.upload, "log": within_job(logs)}
        await self._logs.upload(ending.upload, ending.before.id, ending.before.attempt, logs)
        return {"upload": ending.upload, "log": None}

    async def _credit(self, accepted: Sequence[Ending]) -> None:
        """Count ended jobs for their workers, and clear those of blame: short by some if the process dies here."""
        ended = Counter[str]()
        blameless = set()
        for ending in accepted:
            worker_id, result = ending.report.claim.worker_id, ending.report.result
            ended[worker_id] += ending.after.state.ended
            if not (result.reason and result.reason.is_infrastructure):
                blameless.add(worker_id)
        changes = [
            UpdateOne({"_id": worker_id}, {"$inc": {"jobs_processed": number}} | _cleared(worker_id in blameless))
            for worker_id, number in ended.items()
        ]
        if changes:
            await self._workers.bulk_write(changes, ordered=False)
        if any(ending.after.state is JobState.QUEUED for ending in accepted):
            await self._bell.ring()

    async def _phases_over(self, answers: Iterable[Answer]) -> set[tuple[str, JobType]]:
        """Those of the answers' phases of which nothing is unfinished, as of after their results."""
        phases = [*{_phase(answer.job): None for answer in answers if isinstance(answer, FinishedJob)}]
        unfinished = await asyncio.gather(
            *(
                self._jobs.find_one({"run_id": run_id, "type": of_type, "ended": False}, {"_id": True}, hint=UNFINISHED)
                for run_id, of_type in phases
            )
        )
        return {phase for phase, job in zip(phases, unfinished, strict=True) if job is None}


def _holds(claim: Claim, job: Job) -> bool:
    return job.state is JobState.RUNNING and job.worker_id == claim.worker_id and claim.attempt in (None, job.attempt)


def _repeated_or_lost(claim: Claim, job: Job) -> Answer:
    if lifecycle.is_repeat(job, claim.worker_id, claim.attempt):
        return FinishedJob(job=job, phase_over=False, repeated=True)
    return ClaimLost(claim.job_id, claim.worker_id, claim.attempt)


def _cleared(blameless: bool) -> Document:
    return {"$set": BLAMELESS} if blameless else {}


def _phase(job: Job) -> tuple[str, JobType]:
    return job.run_id, job.type


def _with_phase(answer: Answer, over: set[tuple[str, JobType]]) -> Answer:
    return replace(answer, phase_over=_phase(answer.job) in over) if isinstance(answer, FinishedJob) else answer
