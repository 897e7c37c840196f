"""The rules of runs and jobs: every transition, and where any sequence of outcomes ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_api import lifecycle
from broadway_api.domain import (
    Job,
    JobState,
    JobType,
    Reason,
    Result,
    Run,
    RunConfig,
    RunProgress,
    RunState,
    Stage,
    Worker,
    WorkerState,
)
from broadway_api.lifecycle import Advance, CancelLeftovers, OpenPhase, Settle, next_step

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
STAGES = (Stage(image="i"),)
INFRASTRUCTURE = [Reason.IMAGE_UNAVAILABLE, Reason.RUNTIME_ERROR, Reason.WORKER_LOST]
STUDENTS_OWN = [reason for reason in Reason if reason not in INFRASTRUCTURE]


def config(*, pre: bool = False, post: bool = False) -> RunConfig:
    return RunConfig(
        student_pipeline=STAGES,
        pre_processing_pipeline=STAGES if pre else None,
        post_processing_pipeline=STAGES if post else None,
    )


def progress(state: RunState, run_config: RunConfig | None = None, **facts: bool) -> RunProgress:
    run = Run(id="r", config=run_config or config(pre=True, post=True), created_at=NOW, state=state)
    return RunProgress(run=run, **{"unopened": False, "unfinished": False, "failed": False, "leftover": False} | facts)


def running(*, attempt: int = 1, limit: int = 3) -> Job:
    return Job(
        id="j",
        run_id="r",
        type=JobType.STUDENT,
        seq=1,
        state=JobState.RUNNING,
        attempt=attempt,
        attempt_limit=limit,
        worker_id="w",
        lease_expires_at=NOW + timedelta(seconds=30),
        started_at=NOW,
    )


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaving", "failed", "pre", "post", "to"),
    [
        (RunState.PRE_PROCESSING, False, True, True, RunState.STUDENTS),
        (RunState.PRE_PROCESSING, True, True, True, RunState.FAILED),
        (RunState.STUDENTS, False, False, False, RunState.FINISHED),
        (RunState.STUDENTS, True, False, False, RunState.FINISHED),
        (RunState.STUDENTS, False, False, True, RunState.POST_PROCESSING),
        (RunState.STUDENTS, True, False, True, RunState.POST_PROCESSING),
        (RunState.POST_PROCESSING, False, False, True, RunState.FINISHED),
        (RunState.POST_PROCESSING, True, False, True, RunState.FAILED),
    ],
)
def test_the_end_of_each_phase(leaving: RunState, failed: bool, pre: bool, post: bool, to: RunState) -> None:
    step = next_step(progress(leaving, config(pre=pre, post=post), failed=failed))
    assert step == Advance(leaving=leaving, to=to)


def test_the_first_phase_is_pre_processing_if_there_is_one() -> None:
    assert lifecycle.first_phase(config(pre=True)) is RunState.PRE_PROCESSING
    assert lifecycle.first_phase(config(post=True)) is RunState.STUDENTS


def test_a_run_that_has_not_been_started_needs_nothing() -> None:
    assert next_step(progress(RunState.READY, leftover=True)) is None


@pytest.mark.parametrize("state", lifecycle.PHASES)
def test_a_phase_is_opened_before_anything_else(state: RunState) -> None:
    step = next_step(progress(state, unopened=True, unfinished=True, failed=True, leftover=True))
    assert step == OpenPhase(job_type=lifecycle.PHASES[state])


@pytest.mark.parametrize("state", lifecycle.PHASES)
def test_a_phase_that_is_worked_on_is_left_alone(state: RunState) -> None:
    assert next_step(progress(state, unfinished=True, failed=True, leftover=True)) is None


@pytest.mark.parametrize("state", [state for state in RunState if state.ended])
def test_an_ended_run_is_cleared_and_then_settled(state: RunState) -> None:
    assert next_step(progress(state, leftover=True)) == CancelLeftovers()
    assert next_step(progress(state)) == Settle()


class World:
    """A run with its jobs, as a store would keep them; takes the steps that the lifecycle asks for."""

    def __init__(self, run_config: RunConfig, students: int) -> None:
        self.run = Run(id="r", config=run_config, created_at=NOW)
        self.visited = [self.run.state]
        types = [JobType.PRE_PROCESSING] if run_config.pre_processing_pipeline else []
        types += [JobType.STUDENT] * students
        types += [JobType.POST_PROCESSING] if run_config.post_processing_pipeline else []
        self.jobs = {seq: (kind, JobState.WAITING) for seq, kind in enumerate(types)}
        self.settled = False

    def progress(self) -> RunProgress:
        phase = [state for kind, state in self.jobs.values() if kind == lifecycle.PHASES.get(self.run.state)]
        return RunProgress(
            run=self.run,
            unopened=JobState.WAITING in phase,
            unfinished=any(not state.ended for state in phase),
            failed=any(state in (JobState.FAILED, JobState.CANCELLED) for state in phase),
            leftover=any(state in (JobState.WAITING, JobState.QUEUED) for _, state in self.jobs.values()),
        )

    def move(self, to: RunState) -> None:
        self.run = replace(self.run, state=to)
        self.visited.append(to)

    def turn(self, wanted: JobType | None, before: set[JobState], after: JobState) -> None:
        for seq, (kind, state) in self.jobs.items():
            if state in before and wanted in (None, kind):
                self.jobs[seq] = (kind, after)

    def take(self, step: lifecycle.Step) -> None:
        match step:
            case OpenPhase(job_type=kind):
                self.turn(kind, {JobState.WAITING}, JobState.QUEUED)
            case Advance(leaving=leaving, to=to):
                if self.run.state is leaving:  # the compare of the store's compare-and-set
                    self.move(to)
            case CancelLeftovers():
                self.turn(None, {JobState.WAITING, JobState.QUEUED}, JobState.CANCELLED)
            case Settle():
                self.settled = True

    def settle(self) -> None:
        while not self.settled and (step := next_step(self.progress())):
            assert next_step(self.progress()) == step  # asking changes nothing
            self.take(step)
            self.take(step)  # another process takes it too, or this one after a crash


@given(
    pre=st.booleans(),
    post=st.booleans(),
    students=st.integers(1, 5),
    outcomes=st.lists(st.booleans(), min_size=7, max_size=7),
    order=st.randoms(use_true_random=False),
)
def test_any_sequence_of_outcomes_ends_the_run_once(
    pre: bool, post: bool, students: int, outcomes: list[bool], order: object
) -> None:
    world = World(config(pre=pre, post=post), students)
    world.move(lifecycle.first_phase(world.run.config))
    world.settle()
    for good in outcomes:
        queued = [seq for seq, (_, state) in world.jobs.items() if state is JobState.QUEUED]
        if not queued:
            break
        seq = order.choice(queued)  # type: ignore[attr-defined]
        world.jobs[seq] = (world.jobs[seq][0], JobState.SUCCEEDED if good else JobState.FAILED)
        world.settle()
    by_type = {kind: [state for its, state in world.jobs.values() if its is kind] for kind in JobType}
    pre_failed = JobState.FAILED in by_type[JobType.PRE_PROCESSING]
    post_failed = JobState.FAILED in by_type[JobType.POST_PROCESSING]
    assert world.settled
    assert all(state.ended for _, state in world.jobs.values())
    assert [state.ended for state in world.visited].count(True) == 1
    assert len(set(world.visited)) == len(world.visited)
    assert world.run.state is (RunState.FAILED if pre_failed or post_failed else RunState.FINISHED)
    cancelled = [kind for kind, state in world.jobs.values() if state is JobState.CANCELLED]
    assert len(cancelled) == (students + post if pre_failed else 0)


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_success_ends_the_job() -> None:
    job = lifecycle.after_result(running(), Result(success=True, reason=None, info=({"exit_code": 0},)), NOW)
    assert (job.state, job.reason, job.info, job.finished_at) == (JobState.SUCCEEDED, None, ({"exit_code": 0},), NOW)
    assert (job.worker_id, job.lease_expires_at) == ("w", None)
    assert [(ended.number, ended.reason, ended.reported) for ended in job.attempts] == [(1, None, True)]


@pytest.mark.parametrize("reason", STUDENTS_OWN)
def test_a_students_fault_is_never_retried(reason: Reason) -> None:
    job = lifecycle.after_result(running(limit=100), Result(success=False, reason=reason), NOW)
    assert (job.state, job.reason, len(job.attempts)) == (JobState.FAILED, reason, 1)


@pytest.mark.parametrize("reason", INFRASTRUCTURE)
def test_the_fleets_fault_is_retried_while_attempts_are_left(reason: Reason) -> None:
    result = Result(success=False, reason=reason)
    again = lifecycle.after_result(running(attempt=2), result, NOW)
    assert (again.state, again.reason, again.worker_id, again.started_at) == (JobState.QUEUED, None, None, None)
    assert (again.attempt, again.attempt_limit, again.attempts[-1].reason) == (2, 3, reason)
    failed = lifecycle.after_result(running(attempt=3), result, NOW)
    assert (failed.state, failed.reason, failed.worker_id) == (JobState.FAILED, reason, "w")


def test_a_lost_lease_is_retried_while_attempts_are_left() -> None:
    again = lifecycle.after_lost_lease(running(attempt=2), NOW)
    assert (again.state, again.attempts[-1].reason, again.attempts[-1].reported) == (
        JobState.QUEUED,
        Reason.WORKER_LOST,
        False,
    )
    failed = lifecycle.after_lost_lease(running(attempt=3), NOW)
    assert (failed.state, failed.reason, failed.finished_at) == (JobState.FAILED, Reason.WORKER_LOST, NOW)


def test_handing_back_costs_no_attempt_however_often() -> None:
    job = running(attempt=3)
    for _ in range(10):
        job = lifecycle.after_hand_back(job, NOW)
        assert job.state is JobState.QUEUED
        job = replace(job, state=JobState.RUNNING, attempt=job.attempt + 1, worker_id="w", started_at=NOW)
    assert lifecycle.after_lost_lease(job, NOW).state is JobState.FAILED
    assert lifecycle.after_lost_lease(replace(job, attempt_limit=job.attempt + 1), NOW).state is JobState.QUEUED


@given(st.lists(st.sampled_from(["result", "lost", "back"]), max_size=20), st.integers(1, 4))
def test_a_job_is_handed_out_as_often_as_its_limit_says_and_no_more(ends: list[str], limit: int) -> None:
    job, costly = running(limit=limit), 0
    for number, end in enumerate(ends, start=1):
        if end == "result":
            job = lifecycle.after_result(job, Result(success=False, reason=Reason.RUNTIME_ERROR), NOW)
        elif end == "lost":
            job = lifecycle.after_lost_lease(job, NOW)
        else:
            job = lifecycle.after_hand_back(job, NOW)
        costly += end != "back"
        assert [ended.number for ended in job.attempts] == list(range(1, number + 1))
        assert (job.state is JobState.FAILED) == (costly == limit)
        if job.state is JobState.FAILED:
            return
        assert (job.state, job.lease_expires_at, job.worker_id) == (JobState.QUEUED, None, None)
        job = replace(job, state=JobState.RUNNING, attempt=job.attempt + 1, worker_id="w", started_at=NOW)


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.RUNNING])
def test_only_a_running_attempt_can_end(state: JobState) -> None:
    job = replace(running(), state=state)
    with pytest.raises(ValueError, match="not running"):
        lifecycle.after_result(job, Result(success=True, reason=None), NOW)
    with pytest.raises(ValueError, match="not running"):
        lifecycle.after_lost_lease(job, NOW)
    with pytest.raises(ValueError, match="not running"):
        lifecycle.after_hand_back(job, NOW)


def test_only_a_reported_attempt_of_the_same_worker_is_a_repeat() -> None:
    reported = lifecycle.after_result(running(), Result(success=True, reason=None), NOW)
    assert lifecycle.is_repeat(reported, "w", 1)
    assert lifecycle.is_repeat(reported, "w", None)
    assert not lifecycle.is_repeat(reported, "w", 2)
    assert not lifecycle.is_repeat(reported, "other", 1)
    assert not lifecycle.is_repeat(lifecycle.after_lost_lease(running(), NOW), "w", 1)
    assert not lifecycle.is_repeat(lifecycle.after_hand_back(running(), NOW), "w", None)
    assert not lifecycle.is_repeat(running(), "w", 1)


def test_the_answer_to_a_result_stays_what_it_was() -> None:
    fault = Result(success=False, reason=Reason.RUNTIME_ERROR)
    queued = lifecycle.after_result(running(), fault, NOW)
    taken = replace(queued, state=JobState.RUNNING, attempt=2, worker_id="other", started_at=NOW)
    done = lifecycle.after_result(taken, Result(success=True, reason=None), NOW)
    for job in (queued, taken, done):
        assert lifecycle.state_after_attempt(job, "w", 1) is JobState.QUEUED
    assert lifecycle.state_after_attempt(done, "other", 2) is JobState.SUCCEEDED
    assert (
        lifecycle.state_after_attempt(lifecycle.after_result(running(limit=1), fault, NOW), "w", 1) is JobState.FAILED
    )
    failed = lifecycle.after_result(running(), Result(success=False, reason=Reason.TIMEOUT), NOW)
    assert lifecycle.state_after_attempt(failed, "w", None) is JobState.FAILED


@pytest.mark.parametrize("end", ["result", "lost"])
def test_a_job_that_a_worker_failed_is_for_others_for_a_while(end: str) -> None:
    fault = Result(success=False, reason=Reason.RUNTIME_ERROR)
    job = (
        lifecycle.after_result(running(), fault, NOW) if end == "result" else lifecycle.after_lost_lease(running(), NOW)
    )
    assert (job.avoid_worker_id, job.avoid_until) == ("w", NOW + lifecycle.RETRY_ELSEWHERE)


def test_a_job_that_was_handed_back_is_for_everybody() -> None:
    avoiding = replace(running(), avoid_worker_id="other", avoid_until=NOW)
    job = lifecycle.after_hand_back(avoiding, NOW)
    assert (job.avoid_worker_id, job.avoid_until) == (None, None)


# --- runs that are tried again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "state"),
    [
        ([JobType.STUDENT, JobType.PRE_PROCESSING, JobType.POST_PROCESSING], RunState.PRE_PROCESSING),
        ([JobType.POST_PROCESSING, JobType.STUDENT], RunState.STUDENTS),
        ([JobType.POST_PROCESSING], RunState.POST_PROCESSING),
    ],
)
def test_a_run_goes_back_to_the_first_phase_that_is_tried_again(types: list[JobType], state: RunState) -> None:
    assert lifecycle.phase_of([replace(running(), type=job_type) for job_type in types]) is state


# --- workers ---------------------------------------------------------------------------------------------------------


PAUSE = timedelta(seconds=60)


def worker(**fields: Any) -> Worker:
    return Worker(id="w", hostname="h", registered_at=NOW, **({"last_seen": NOW} | fields))


def struck(times: int, *, at: datetime = NOW, before: Worker | None = None) -> Worker:
    after = before or worker()
    for _ in range(times):
        after = lifecycle.after_strike(after, at, limit=3, pause=PAUSE)
    return after


def test_the_third_fault_in_a_row_is_one_too_many() -> None:
    assert [struck(times).quarantined_until for times in range(4)] == [None, None, None, NOW + PAUSE]


def test_what_fails_in_quarantine_was_handed_out_before_it() -> None:
    assert struck(20) == struck(3)
    at = NOW + PAUSE - timedelta(milliseconds=1)
    assert struck(1, at=at, before=struck(3)) == struck(3)


def test_each_failed_probe_doubles_the_pause_up_to_32_times() -> None:
    one, pauses = struck(3), []
    for _ in range(8):
        assert one.quarantined_until is not None
        at = one.quarantined_until
        one = struck(1, at=at, before=one)
        assert one.quarantined_until is not None
        pauses.append((one.quarantined_until - at) / PAUSE)
    assert pauses == [2, 4, 8, 16, 32, 32, 32, 32]


@pytest.mark.parametrize(
    ("fields", "wanted", "holds", "allowed"),
    [
        ({}, 5, 0, 5),
        ({}, 5, 100, 5),
        ({"draining": True}, 5, 0, 0),
        ({"quarantined_until": NOW + PAUSE}, 5, 0, 0),
        ({"quarantined_until": NOW}, 5, 0, 1),
        ({"quarantined_until": NOW}, 5, 1, 0),
        ({"quarantined_until": NOW}, 5, 3, 0),
        ({"quarantined_until": NOW}, 0, 0, 0),
        ({"quarantined_until": NOW, "draining": True}, 5, 0, 0),
    ],
)
def test_how_many_new_jobs_a_worker_may_have(fields: dict[str, Any], wanted: int, holds: int, allowed: int) -> None:
    assert lifecycle.new_jobs_allowed(worker(**fields), wanted, holds, NOW) == allowed


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, WorkerState.ALIVE),
        ({"strikes": 2}, WorkerState.ALIVE),
        ({"quarantined_until": NOW - PAUSE}, WorkerState.QUARANTINED),  # until a probe has succeeded
        ({"quarantined_until": NOW, "draining": True}, WorkerState.DRAINING),
        ({"last_seen": NOW - PAUSE}, WorkerState.ALIVE),
        ({"last_seen": NOW - PAUSE - timedelta(milliseconds=1), "draining": True}, WorkerState.LOST),
    ],
)
def test_what_a_worker_is_up_to(fields: dict[str, Any], state: WorkerState) -> None:
    assert lifecycle.worker_state(worker(**fields), NOW, PAUSE) is state
