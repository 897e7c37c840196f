"""What people are shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from broadway_api import wire
from broadway_api.domain import (
    Attempt,
    Job,
    JobState,
    JobType,
    Reason,
    Run,
    RunConfig,
    RunState,
    RunSummary,
    Stage,
)

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
RUN = Run(id="r", config=RunConfig(student_pipeline=(Stage(image="i"),)), created_at=NOW)
JOB = Job(id="j", run_id="r", type=JobType.STUDENT, seq=1, attempt_limit=3)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (None, None),
        (NOW, "2026-01-31T09:30:00.000Z"),
        (NOW + timedelta(milliseconds=7), "2026-01-31T09:30:00.007Z"),
        (NOW.astimezone(timezone(timedelta(hours=-6))), "2026-01-31T09:30:00.000Z"),
    ],
)
def test_times_are_utc_with_milliseconds(time: datetime | None, text: str | None) -> None:
    assert wire.timestamp(time) == text


def summary(seconds_left: float | None = None) -> RunSummary:
    return RunSummary(
        queued={},
        run=RUN,
        counts={JobState.SUCCEEDED: 1},
        reasons={Reason.TIMEOUT: 1},
        pre_processing_job=None,
        post_processing_job=None,
        seconds_left=seconds_left,
    )


@pytest.mark.parametrize(("left", "eta"), [(None, None), (0.2, 0), (29.7, 30)])
def test_the_time_left_is_in_whole_seconds(left: float | None, eta: int | None) -> None:
    assert wire.summary_to_json(summary(left))["eta_seconds"] == eta


def test_every_state_is_counted() -> None:
    assert set(wire.summary_to_json(summary())["counts"]) == {state.value for state in JobState}


@pytest.mark.parametrize("state", RunState)
def test_success_is_known_only_at_the_end(state: RunState) -> None:
    expected = {RunState.FINISHED: True, RunState.FAILED: False, RunState.CANCELLED: False}
    assert wire.run_to_json(replace(RUN, state=state))["success"] is expected.get(state)


def attempt(number: int, reason: Reason | None, *, reported: bool) -> Attempt:
    return Attempt(
        number=number, worker_id=f"w{number}", reason=reason, started_at=NOW, finished_at=NOW, reported=reported
    )


def test_a_job_lists_the_earlier_attempts_only() -> None:
    """The last one is the job itself."""
    attempts = (attempt(1, Reason.WORKER_LOST, reported=False), attempt(2, None, reported=True))
    ended = replace(JOB, state=JobState.SUCCEEDED, attempt=2, attempts=attempts, worker_id="w2")
    shown = wire.job_detail_to_json(ended, RUN.config, {"w1": "host"}, position=None, stranded=None)
    assert [(entry["attempt"], entry["hostname"], entry["reason"]) for entry in shown["attempts"]] == [
        (1, "host", "worker_lost")
    ]
    again = replace(ended, state=JobState.RUNNING, attempt=3)
    assert len(wire.job_detail_to_json(again, RUN.config, {}, position=None, stranded=None)["attempts"]) == 2


def test_a_job_that_exhausted_its_attempts_shows_them_all_but_the_last() -> None:
    lost = tuple(attempt(number, Reason.WORKER_LOST, reported=False) for number in (1, 2, 3))
    failed = replace(JOB, state=JobState.FAILED, attempt=3, attempts=lost, reason=Reason.WORKER_LOST)
    assert [
        entry["attempt"]
        for entry in wire.job_detail_to_json(failed, RUN.config, {}, position=None, stranded=None)["attempts"]
    ] == [1, 2]


def test_a_log_names_the_attempt_that_printed_it() -> None:
    attempts = (attempt(1, Reason.RUNTIME_ERROR, reported=True), attempt(2, Reason.WORKER_LOST, reported=False))
    assert wire.logs_to_json(replace(JOB, attempt=2, attempts=attempts), [])["attempt"] == 1
    assert wire.logs_to_json(JOB, [])["attempt"] is None
