"""Results on MongoDB: those that arrive at one process together are accepted by a few commands for all of them.

What the stages printed is written before, or, if it is short, by the very write that accepts the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection as AnyOf
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from broadway_api import lifecycle
from broadway_api.domain import Claim, FinishedJob, Job, JobState, JobType, Result
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.mongo_bell import MongoBell
from broadway_api.store.mongo_changes import Change, Guard
from broadway_api.store.mongo_documents import UNFINISHED, job_from_document, outcome
from broadway_api.store.mongo_engine import Collection
from broadway_api.store.mongo_logs import MongoLogs, is_short, new_upload, within_job
from broadway_api.store.mongo_read_ahead import ReadAhead
from broadway_api.store.mongo_running import RunningJobs, holds
from broadway_api.store.mongo_worker_notes import WorkerNotes

Answer = FinishedJob | ClaimLost | JobNotFound

#: The jobs of one type in a run.
Phase = tuple[str, JobType]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One result, as it was posted."""

    claim: Claim
    result: Result
    now: datetime
    upload: str = field(default_factory=new_upload)  # also tells, afterwards, whether it was this report that counted

    @property
    def is_uploaded(self) -> bool:
        """Whether its log is too long to be kept within its job."""
        return not is_short(self.result.logs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """What a report makes of its job, should that still run as it was read."""

    report: Report
    before: Job
    after: Job
    change: Change


def ending_of(report: Report, job: Job | None) -> Ending | None:
    """What a report makes of a job that was read; None if its worker did not hold it then.

    What the stages printed comes with the change, or with its upload.
    """
    if job is None or job.state is not JobState.RUNNING or not holds(report.claim, job):
        return None
    after = lifecycle.after_result(job, report.result, report.now)
    log = None if report.is_uploaded else within_job(report.result.logs)
    fields = {**outcome(after, before=job), "upload": report.upload, "log": log}
    guard = Guard(job.run_id, JobState.RUNNING, job.attempt)
    size = len(fields.get("info") or "") + len(fields.get("results") or "")
    change = Change(job_id=job.id, guard=guard, fields=fields, size=size)
    return Ending(report=report, before=job, after=after, change=change)


class MongoResults:
    """Accepts results."""

    def __init__(
        self,
        jobs: Collection,
        logs: MongoLogs,
        bell: MongoBell,
        running: RunningJobs,
        ahead: ReadAhead,
        notes: WorkerNotes,
    ) -> None:
        self._jobs = jobs
        self._logs = logs
        self._bell = bell
        self._running = running
        self._ahead = ahead
        self._notes = notes

    def look_at(self, report: Report) -> Ending | Report:
        """What a report makes of its job, if this process handed that out: found out while others are written."""
        return ending_of(report, self._running.pop(report.claim)) or report

    def accept(self, reports: Sequence[Ending | Report]) -> Accepting:
        """Begin to accept results. Their long logs have been uploaded."""
        return Accepting(self, reports)

    async def upload(self, report: Report) -> None:
        """Write what its stages printed, if that is long, seen by nobody yet."""
        if report.is_uploaded:
            claim = report.claim
            attempt = claim.attempt
            if attempt is None:
                job = await self._jobs.find_one({"_id": claim.job_id}, {"attempt": True})
                attempt = job["attempt"] if job else 0
            await self._logs.upload(report.upload, claim.job_id, attempt, report.result.logs)

    async def jobs(self, reports: Iterable[Report]) -> Mapping[str, Job]:
        """The jobs that some reports are about, read if this process did not hand them out."""
        jobs, unknown = {}, []
        for report in reports:
            job = self._running.pop(report.claim)
            if job is None:
                unknown.append(report.claim.job_id)
            else:
                jobs[job.id] = job
        if unknown:
            found = await self._jobs.find({"_id": {"$in": unknown}}, {"log": False}).to_list()
            jobs |= {document["_id"]: job_from_document(document) for document in found}
        return jobs

    async def kept_uploads(self, job_ids: Sequence[str]) -> set[str | None]:
        """The uploads that count for some jobs."""
        found = self._jobs.find({"_id": {"$in": job_ids}}, {"_id": False, "upload": True})
        return {job.get("upload") async for job in found}

    async def tidy(self, accepted: Sequence[Ending], refused: Iterable[Report]) -> None:
        """Remove logs that do not count, and ring for what is queued again."""
        await asyncio.gather(
            *(
                self._logs.discard_others(ending.before.id, ending.before.attempt, ending.report.upload)
                for ending in accepted
                if ending.before.attempt > 1 or ending.report.is_uploaded  # else there can be no other one
            ),
            *(self._logs.discard(report.claim.job_id, report.upload) for report in refused if report.is_uploaded),
        )
        if any(ending.after.state is JobState.QUEUED for ending in accepted):
            await self._bell.ring()

    def accepted(self, ending: Ending) -> None:
        """Note what its worker has done."""
        worker_id, reason = ending.report.claim.worker_id, ending.report.result.reason
        blameless = not (reason and reason.is_infrastructure)
        self._notes.reported(worker_id, ended=ending.after.state.ended, blameless=blameless)
        self._ahead.ended(worker_id, ending.before.id)
        if ending.after.state is JobState.QUEUED:  # it comes before whatever was read
            self._ahead.forget()

    async def over(self, phases: Iterable[Phase]) -> set[Phase]:
        """Those of the phases of which nothing is unfinished."""
        asked = list(phases)
        unfinished = await asyncio.gather(
            *(
                self._jobs.find_one({"run_id": run_id, "type": of_type, "ended": False}, {"_id": True}, hint=UNFINISHED)
                for run_id, of_type in asked
            )
        )
        return {phase for phase, job in zip(asked, unfinished, strict=True) if job is None}


class Accepting:
    """Accepts results in rounds, each of them a write: one whose job was changed meanwhile takes another."""

    def __init__(self, results: MongoResults, reports: Sequence[Ending | Report]) -> None:
        self._results = results
        self._reports = [one.report if isinstance(one, Ending) else one for one in reports]
        self._looked_at = {number: one for number, one in enumerate(reports) if isinstance(one, Ending)}
        self._answers: dict[int, Answer] = {}
        self._endings: dict[int, Ending] = {}  # that are being written
        self._accepted: list[Ending] = []
        self._perhaps_over: set[Phase] = set()

    async def next(self) -> list[Change]:
        """What is to be written next; nothing once all are answered. Then comes `written`."""
        while open_reports := self._one_of_each_job():
            self._endings = {number: one for number, one in self._looked_at.items() if number in open_reports}
            self._looked_at = {}
            others = {number: one for number, one in open_reports.items() if number not in self._endings}
            jobs = await self._results.jobs(others.values())
            for number, report in others.items():
                job = jobs.get(report.claim.job_id)
                if ending := ending_of(report, job):
                    self._endings[number] = ending
                else:
                    self._answer(number, _repeated_or_lost(report.claim, job))
            if self._endings:
                return [ending.change for ending in self._endings.values()]
        return []

    async def written(self, *, all_of_it: bool) -> None:
        """Note what became of what was to be written."""
        kept = None
        if not all_of_it:
            kept = await self._results.kept_uploads([ending.before.id for ending in self._endings.values()])
        for number, ending in self._endings.items():
            if kept is None or ending.report.upload in kept:
                self._accepted.append(ending)
                self._results.accepted(ending)
                self._answer(number, FinishedJob(job=ending.after, phase_over=False))
        self._endings = {}

    def saw_unfinished(self, phases: AnyOf[Phase]) -> None:
        """These had unfinished jobs after what was written last: whoever ends those will ask whether it is over."""
        self._perhaps_over.difference_update(phases)

    async def answers(self) -> list[Answer]:
        """What each result led to, or why it was refused."""
        accepted = {ending.report.upload for ending in self._accepted}
        await self._results.tidy(self._accepted, [one for one in self._reports if one.upload not in accepted])
        over = await self._results.over(self._perhaps_over)
        return [_with_phase(self._answers[number], over) for number in range(len(self._reports))]

    def _one_of_each_job(self) -> dict[int, Report]:
        """Results without an answer; of those for one job the first: the others see what becomes of that."""
        rest: dict[str, tuple[int, Report]] = {}
        for number, report in enumerate(self._reports):
            if number not in self._answers:
                rest.setdefault(report.claim.job_id, (number, report))
        return dict(rest.values())

    def _answer(self, number: int, answer: Answer) -> None:
        self._answers[number] = answer
        if isinstance(answer, FinishedJob):
            self._perhaps_over.add(phase_of(answer.job))


def phase_of(job: Job) -> Phase:
    return job.run_id, job.type


def _repeated_or_lost(claim: Claim, job: Job | None) -> Answer:
    if job is None:
        return JobNotFound(claim.job_id)
    if lifecycle.is_repeat(job, claim.worker_id, claim.attempt):
        return FinishedJob(job=job, phase_over=False, repeated=True)
    return ClaimLost(claim.job_id, claim.worker_id, claim.attempt)


def _with_phase(answer: Answer, over: AnyOf[Phase]) -> Answer:
    if isinstance(answer, FinishedJob) and phase_of(answer.job) in over:
        return replace(answer, phase_over=True)
    return answer
