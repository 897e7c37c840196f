"""The reckoning itself: a campaign that could not fail would prove nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from broadway_api.domain import Attempt, Job, JobState, JobType, Reason, Run, RunConfig, RunState, Stage
from tests.chaos.fake_runtime import FakeRuntime
from tests.chaos.invariants import Evidence, violations
from tests.chaos.load import RUN_NUMBER, Fate, Promise, RunPlan
from tests.chaos.record import BEGIN, END, Entry

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
OUTCOME = "0:0.1,1:0.1"
STAGE = Stage(image="any")

PLAN = RunPlan(
    number=7, key="key", students=(OUTCOME,), stages=2, before="0:0.1", after="0:0.1", fate=Fate.WAIT, cancel_after=0
)
PROMISE = Promise(plan=PLAN, run_id="run", started=True)
RUN = Run(
    id="run",
    state=RunState.FINISHED,
    config=RunConfig(student_pipeline=(STAGE,), env={RUN_NUMBER: 7}),
    created_at=NOW,
)


def attempt(number: int = 1, reason: Reason | None = None, *, reported: bool = True) -> Attempt:
    later = NOW + timedelta(seconds=number)
    return Attempt(number=number, worker_id="w", reason=reason, started_at=NOW, finished_at=later, reported=reported)


def job(job_type: JobType, *attempts: Attempt) -> Job:
    """A job that ended with its last attempt."""
    reason = attempts[-1].reason
    return Job(
        id=job_type.value,
        run_id="run",
        type=job_type,
        seq=0,
        student={"NET_ID": "s0", "OUTCOME": OUTCOME} if job_type is JobType.STUDENT else None,
        state=JobState.FAILED if reason else JobState.SUCCEEDED,
        reason=reason,
        attempt=attempts[-1].number,
        attempt_limit=3,
        worker_id="w",
        attempts=attempts,
    )


def ran(job_type: JobType, at: float, *codes: int, attempt: int = 1, life: str = "grader-0/1") -> list[Entry]:
    """The record of stages that ran to their ends, one after the other."""
    entries: list[Entry] = []
    for stage, code in enumerate(codes):
        for event, exit_code in ((BEGIN, None), (END, code)):
            entries.append(
                Entry(
                    at=at + len(entries) / 10,
                    life=life,
                    job_id=job_type.value,
                    attempt=attempt,
                    stage=stage,
                    event=event,
                    exit_code=exit_code,
                )
            )
    return entries


BEFORE, STUDENT, AFTER = JobType.PRE_PROCESSING, JobType.STUDENT, JobType.POST_PROCESSING
FAILED = attempt(1, Reason.STAGE_FAILED)
GOOD = Evidence(
    promises=[PROMISE],
    runs=[RUN],
    jobs={"run": [job(BEFORE, attempt()), job(STUDENT, FAILED), job(AFTER, attempt())]},
    logs={
        kind.value: {stage: FakeRuntime.printed(kind.value, 1, stage) for stage in range(stages)}
        for kind, stages in ((BEFORE, 1), (STUDENT, 2), (AFTER, 1))
    },
    record={
        BEFORE.value: {1: ran(BEFORE, 1, 0)},
        STUDENT.value: {1: ran(STUDENT, 2, 0, 1)},
        AFTER.value: {1: ran(AFTER, 3, 0)},
    },
    max_attempts=3,
)


def with_student(*attempts: Attempt, **changes: object) -> Evidence:
    """The good run with another student's job."""
    student = dataclasses.replace(job(STUDENT, *attempts), **changes)  # type: ignore[arg-type]  # of any field
    before, _, after = GOOD.jobs["run"]
    return dataclasses.replace(GOOD, jobs={"run": [before, student, after]})


def with_record(job_type: JobType, *tries: Sequence[Entry]) -> Evidence:
    """The good run with another record of one job."""
    return dataclasses.replace(GOOD, record={**GOOD.record, job_type.value: {t[0].attempt: t for t in tries}})


def test_a_run_as_it_should_be_breaks_no_promise() -> None:
    assert list(violations(GOOD)) == []


@pytest.mark.parametrize(
    ("evidence", "complaint"),
    [
        (dataclasses.replace(GOOD, runs=[]), "acknowledged, and is not there"),
        (dataclasses.replace(GOOD, runs=[RUN, dataclasses.replace(RUN, id="twin")]), "made 2 runs"),
        (dataclasses.replace(GOOD, runs=[dataclasses.replace(RUN, state=RunState.STUDENTS)]), "has not ended"),
        (dataclasses.replace(GOOD, runs=[dataclasses.replace(RUN, state=RunState.FAILED)]), "its jobs say finished"),
        (dataclasses.replace(GOOD, promises=[]), "never acknowledged"),
        (
            dataclasses.replace(GOOD, promises=[dataclasses.replace(PROMISE, cancelled=True, cancels_sent=1)]),
            "its cancellation was acknowledged",
        ),
        (dataclasses.replace(GOOD, jobs={"run": GOOD.jobs["run"][:2]}), "it has the jobs"),
        (dataclasses.replace(GOOD, logs={}), "the log of attempt 1 is"),
        (with_student(FAILED, state=JobState.RUNNING), "has not ended"),
        (with_student(FAILED, attempt(2, Reason.STAGE_FAILED)), "2 results were accepted"),
        (with_student(FAILED, attempt_limit=4), "its limit is 4 after 0"),
        (with_student(FAILED, attempt=2), "its attempts [2] never ended"),
        (with_student(FAILED, worker_id="other"), "by worker other"),
        (with_student(attempt(1)), "was accepted with reason None"),
        (with_student(attempt(1, Reason.WORKER_LOST, reported=False)), "at attempt 1 of 3"),
        (with_record(STUDENT, ran(STUDENT, 2, 0)), "was accepted, and its stages ended with [0]"),
        (with_record(STUDENT, ran(STUDENT, 2, 0, 1)[:-1]), "was accepted, and its stages ended with [0]"),
        (with_record(STUDENT, ran(STUDENT, 2, 0, 1)[2:]), "ran its stages like this"),
        (with_record(STUDENT, ran(STUDENT, 2, 0, 1) * 2), "ran its stages like this"),
        (with_record(STUDENT, ran(STUDENT, 2, 0, 1), ran(STUDENT, 5, 0, attempt=2)), "never handed out"),
        (
            with_record(STUDENT, [*ran(STUDENT, 2, 0, 1)[:2], *ran(STUDENT, 2, 0, 1, life="grader-1/1")[2:]]),
            "ran in two processes",
        ),
        (with_record(STUDENT, ran(STUDENT, 0.5, 0, 1)), "began before pre-processing had succeeded"),
        (with_record(AFTER, ran(AFTER, 2.1, 0)), "before the last student's job had ended"),
        (dataclasses.replace(GOOD, record={**GOOD.record, "ghost": {1: ran(STUDENT, 2, 0)}}), "job ghost ran"),
    ],
)
def test_a_broken_promise_is_found(evidence: Evidence, complaint: str) -> None:
    assert any(complaint in violation.what for violation in violations(evidence)), list(violations(evidence))
