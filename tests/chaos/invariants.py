"""What must hold at the end of a campaign: the store's words held against the record of what stages did. Pure."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from broadway_api.domain import Attempt, Job, JobState, JobType, Run, RunState
from tests.chaos import outcomes
from tests.chaos.fake_runtime import FakeRuntime
from tests.chaos.load import RUN_NUMBER, Promise, RunPlan
from tests.chaos.record import BEGIN, END, Entry

#: Job id → attempt → what its stages did.
Record = Mapping[str, Mapping[int, Sequence[Entry]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Violation:
    """A promise that was broken."""

    what: str
    job_id: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known when everything has come to rest."""

    promises: Sequence[Promise]
    runs: Sequence[Run]
    jobs: Mapping[str, Sequence[Job]]  # of each run
    logs: Mapping[str, Mapping[int, str]]  # of each job: what each stage printed
    record: Record
    max_attempts: int


def violations(evidence: Evidence) -> Iterator[Violation]:
    """Every broken promise."""
    runs = {run.id: run for run in evidence.runs}
    yield from _runs_by_key(evidence)
    for promise in evidence.promises:
        run = runs.get(promise.run_id)
        if run is None:
            yield Violation(what=f"run {promise.run_id} was acknowledged, and is not there")
            continue
        for what, job_id in _of_run(promise, run, evidence):
            yield Violation(what=f"run {run.id}: {what}", job_id=job_id)
    known = {job.id: job for jobs in evidence.jobs.values() for job in jobs}
    for job_id in evidence.record.keys() - known.keys():
        yield Violation(what=f"job {job_id} ran, and is not in the store", job_id=job_id)


def accepted_attempts(job: Job) -> list[Attempt]:
    """Those whose result ended the job."""
    return [
        attempt
        for attempt in job.attempts
        if attempt.reported and (attempt.reason is None or not attempt.reason.is_infrastructure)
    ]


def late_begins(evidence: Evidence) -> Iterator[tuple[Job, Entry]]:
    """First stages of superseded attempts that began after another attempt had been accepted."""
    for job in itertools.chain.from_iterable(evidence.jobs.values()):
        accepted = accepted_attempts(job)
        tried = evidence.record.get(job.id, {})
        if accepted and (entries := tried.get(accepted[-1].number)):
            for attempt, others in tried.items():
                if attempt < accepted[-1].number and others[0].at > entries[-1].at:
                    yield job, others[0]


def _runs_by_key(evidence: Evidence) -> Iterator[Violation]:
    made = Counter(str(run.config.env.get(RUN_NUMBER)) for run in evidence.runs)
    promised = {str(promise.plan.number) for promise in evidence.promises}
    for number, count in made.items():
        if count > 1:
            yield Violation(what=f"the key of run {number} made {count} runs")
        if number not in promised:
            yield Violation(what=f"run {number} is there, and was never acknowledged")


def _of_run(promise: Promise, run: Run, evidence: Evidence) -> Iterator[tuple[str, str | None]]:
    jobs = evidence.jobs[run.id]
    plan = promise.plan
    types = Counter(job.type for job in jobs)
    wanted = {JobType.STUDENT: len(plan.students)}
    wanted |= {JobType.PRE_PROCESSING: 1} if plan.before is not None else {}
    wanted |= {JobType.POST_PROCESSING: 1} if plan.after is not None else {}
    if types != wanted:
        yield f"it has the jobs {dict(types)}, not {wanted}", None
    entries = Counter(job.student["NET_ID"] for job in jobs if job.student is not None)
    if len(entries) != len(plan.students):
        yield "not every student has one job", None
    if promise.started and not run.state.ended:
        yield f"it has not ended, it is {run.state}", None
    if promise.cancelled and run.state is not RunState.CANCELLED:
        yield f"its cancellation was acknowledged, and it is {run.state}", None
    if not promise.cancels_sent and not promise.retries_sent:
        yield from _outcome_of_run(plan, run, jobs)
    yield from _order(promise, jobs, evidence.record)
    for job in jobs:
        for what in _of_job(job, promise, evidence):
            yield f"{job.type} job {job.id}: {what}", job.id


def _outcome_of_run(plan: RunPlan, run: Run, jobs: Sequence[Job]) -> Iterator[tuple[str, str | None]]:
    by_type = defaultdict(list)
    for job in jobs:
        by_type[job.type].append(job)
    before = by_type[JobType.PRE_PROCESSING]
    after = by_type[JobType.POST_PROCESSING]
    if before and before[0].state is JobState.FAILED:
        expected = RunState.FAILED
        for job in (*by_type[JobType.STUDENT], *after):
            if job.state is not JobState.CANCELLED or job.attempt:
                yield f"its pre-processing failed, and job {job.id} is {job.state}", job.id
    else:
        expected = RunState.FAILED if after and after[0].state is JobState.FAILED else RunState.FINISHED
        for job in jobs:
            if job.state is JobState.CANCELLED:
                yield f"nobody cancelled it, and job {job.id} is cancelled", job.id
    if run.state is not expected:
        yield f"it is {run.state}, its jobs say {expected}", None


def _order(promise: Promise, jobs: Iterable[Job], record: Record) -> Iterator[tuple[str, str | None]]:
    """Students began after pre-processing had succeeded, post-processing after all students had ended."""
    by_type = defaultdict(list)
    for job in jobs:
        by_type[job.type].append(job)
    students = by_type[JobType.STUDENT]
    begun = [tried[0].at for job in students for tried in record.get(job.id, {}).values()]
    for job in by_type[JobType.PRE_PROCESSING]:
        ends = [
            tried[-1].at
            for tried in record.get(job.id, {}).values()
            if _codes(tried) == list(outcomes.expected_codes(promise.plan.before or "")) and not _codes(tried)[-1]
        ]
        if begun and (not ends or min(begun) < min(ends)):
            yield "a student's job began before pre-processing had succeeded", job.id
    ended = [
        record[job.id][accepted[-1].number][-1].at
        for job in students
        if (accepted := accepted_attempts(job)) and accepted[-1].number in record.get(job.id, {})
    ]
    for job in by_type[JobType.POST_PROCESSING]:
        tries = record.get(job.id, {})
        accepted = accepted_attempts(job)
        counted = (
            [accepted[-1].number] if promise.retries_sent and accepted else tries if not promise.retries_sent else ()
        )
        if any(number in tries and tries[number][0].at < max(ended, default=0.0) for number in counted):
            yield "post-processing began before the last student's job had ended", job.id


def _of_job(job: Job, promise: Promise, evidence: Evidence) -> Iterator[str]:
    if promise.started and not job.state.ended:
        yield f"it has not ended, it is {job.state}"
        return
    yield from _history(job, promise, evidence.max_attempts)
    tried = evidence.record.get(job.id, {})
    for attempt, entries in tried.items():
        yield from _attempt(job, attempt, entries)
    text = _planned(job, promise.plan)
    for accepted in accepted_attempts(job):
        entries = tried.get(accepted.number, ())
        codes = _codes(entries)
        if codes != list(outcomes.expected_codes(text)) or entries[-1].event != END:
            yield f"attempt {accepted.number} was accepted, and its stages ended with {codes} instead of {text}"
        elif (accepted.reason is None) != (codes[-1] == 0):
            yield f"attempt {accepted.number} was accepted with reason {accepted.reason}, and ended with {codes}"
        elif accepted.number == job.attempt and not entries[0].life.startswith("docker"):
            printed = {stage: FakeRuntime.printed(job.id, accepted.number, stage) for stage in range(len(codes))}
            if evidence.logs.get(job.id) != printed:
                yield f"the log of attempt {accepted.number} is {evidence.logs.get(job.id)}"


def _history(job: Job, promise: Promise, max_attempts: int) -> Iterator[str]:
    numbers = [attempt.number for attempt in job.attempts]
    missing = set(range(1, job.attempt + 1)) - set(numbers)
    if len(set(numbers)) != len(numbers) or numbers != sorted(numbers) or not set(numbers) <= {*range(job.attempt + 1)}:
        yield f"its history is of attempts {numbers}, its attempt is {job.attempt}"
    if missing:
        yield f"its attempts {sorted(missing)} never ended"
    handed_back = sum(attempt.reason is None and not attempt.reported for attempt in job.attempts)
    accepted = accepted_attempts(job)
    if job.attempt > job.attempt_limit:
        yield f"attempt {job.attempt} is beyond its limit {job.attempt_limit}"
    if len(accepted) > 1 + 2 * promise.retries_sent:
        yield f"{len(accepted)} results were accepted, of attempts {[attempt.number for attempt in accepted]}"
    ended_by_result = job.state is JobState.SUCCEEDED or (
        job.state is JobState.FAILED and job.reason is not None and not job.reason.is_infrastructure
    )
    if ended_by_result and not (accepted and accepted[-1] == job.attempts[-1] and accepted[-1].number == job.attempt):
        yield f"it is {job.state}, and no accepted result is the last of its history"
    if ended_by_result and accepted and (accepted[-1].worker_id, accepted[-1].reason) != (job.worker_id, job.reason):
        yield f"it ended with {job.reason} by worker {job.worker_id}, its history says {accepted[-1]}"
    if promise.retries_sent:
        return
    if job.attempt_limit != max_attempts + handed_back:
        yield f"its limit is {job.attempt_limit} after {handed_back} of its attempts were handed back"
    if not ended_by_result and accepted:
        yield f"it is {job.state} ({job.reason}), and the result of attempt {accepted[-1].number} was accepted"
    if job.state is JobState.FAILED and not ended_by_result and job.attempt != job.attempt_limit:
        yield f"it failed with {job.reason} at attempt {job.attempt} of {job.attempt_limit}"


def _attempt(job: Job, attempt: int, entries: Sequence[Entry]) -> Iterator[str]:
    """What the record says of one attempt, whatever came of it."""
    if not 1 <= attempt <= job.attempt:
        yield f"attempt {attempt} ran, and was never handed out"
    if len({entry.life for entry in entries}) > 1:
        yield f"attempt {attempt} ran in two processes"
    expected = [(number // 2, (BEGIN, END)[number % 2]) for number in range(len(entries))]
    seen = [(entry.stage, entry.event) for entry in entries]
    if seen[:-1] != expected[:-1] or seen[-1][0] != expected[-1][0]:
        yield f"attempt {attempt} ran its stages like this: {seen}"


def _codes(entries: Sequence[Entry]) -> list[int | None]:
    return [entry.exit_code for entry in entries if entry.event == END]


def _planned(job: Job, plan: RunPlan) -> str:
    if job.student is not None:
        return str(job.student["OUTCOME"])
    return (plan.before if job.type is JobType.PRE_PROCESSING else plan.after) or ""
