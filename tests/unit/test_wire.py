"""Results of all ages of graders, and what clients are shown."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_api import wire
from broadway_api.domain import (
    Attempt,
    Job,
    JobState,
    JobType,
    Reason,
    Result,
    Run,
    RunConfig,
    RunState,
    RunSummary,
    Stage,
)
from broadway_api.results import MAX_BYTES

SAMPLES = Path(__file__).parents[1] / "samples"
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
RUN = Run(id="r", config=RunConfig(student_pipeline=(Stage(image="i"),)), created_at=NOW)
JOB = Job(id="j", run_id="r", type=JobType.STUDENT, seq=1, attempt_limit=3)


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def test_output_is_kept_apart_from_the_info() -> None:
    result = wire.result_from_json(sample("result_request"))
    assert [(log.stage, log.stdout, log.stderr) for log in result.logs] == [
        (0, "fetched\n", ""),
        (1, "score 9/10\n", "warning: slow\n"),
    ]
    assert all("stdout" not in info and "stderr" not in info for info in result.info)
    assert result.info[1]["cpu_seconds"] == 0.75
    assert (result.success, result.reason) == (True, None)


def test_a_stage_that_printed_nothing_has_no_log() -> None:
    result = wire.result_from_json({"success": True, "info": [{"stdout": "", "stderr": ""}, {}, {"stdout": "x"}]})
    assert [log.stage for log in result.logs] == [2]


@pytest.mark.parametrize("output", [None, 7, ["x"], {"x": "y"}])
def test_output_that_is_no_text_is_an_info_like_others(output: Any) -> None:
    result = wire.result_from_json({"success": True, "info": [{"stdout": output}]})
    assert (result.logs, result.info) == ((), ({"stdout": output},))


def test_what_was_sent_is_not_changed() -> None:
    sent = sample("result_request")
    wire.result_from_json(sent)
    assert sent == sample("result_request")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, Reason.STAGE_FAILED),
        ({"reason": "timeout"}, Reason.TIMEOUT),
        ({"reason": None, "info": [{"reason": "timeout"}]}, Reason.TIMEOUT),
        ({"info": [{"reason": "timeout"}, {"reason": "out_of_memory"}]}, Reason.OUT_OF_MEMORY),
        ({"info": [{"reason": "runtime_error"}, {"reason": None}, {}]}, Reason.RUNTIME_ERROR),
        ({"info": [{"reason": "worker_lost"}]}, Reason.STAGE_FAILED),
        ({"info": [{"reason": "cancelled"}, {"reason": ["timeout"]}, {"reason": {}}]}, Reason.STAGE_FAILED),
        ({"info": [{"reason": "Container timed out"}]}, Reason.STAGE_FAILED),
        ({"info": [{"stdout": "a classic grader", "exit_code": 137}]}, Reason.STAGE_FAILED),
    ],
)
def test_the_reason_is_stated_or_found_or_the_students(data: dict[str, Any], reason: Reason) -> None:
    assert wire.result_from_json({"success": False} | data).reason is reason


def test_a_success_has_no_reason_whatever_is_said() -> None:
    assert wire.result_from_json({"success": True, "reason": "timeout", "info": [{"reason": "timeout"}]}).reason is None


def test_a_huge_info_is_cut_to_its_short_values() -> None:
    info = {"exit_code": 1, "reason": "stage_failed", "blob": "x" * 1_000_000, "message": "short"}
    (kept,) = wire.result_from_json({"success": False, "info": [info]}).info
    assert kept == {"exit_code": 1, "reason": "stage_failed", "message": "short", "info_truncated": True}


def test_the_reason_of_a_huge_info_counts() -> None:
    fields = {f"field{number}": "x" * 900 for number in range(500)}
    result = wire.result_from_json({"success": False, "info": [fields | {"reason": "timeout"}]})
    assert result.reason is Reason.TIMEOUT
    assert len(json.dumps(result.info[0])) <= wire.MAX_INFO


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
infos = st.lists(
    st.dictionaries(st.sampled_from(["exit_code", "reason", "stdout", "stderr", "x"]), anything | st.just("timeout"))
)


@given(success=st.booleans(), sent=infos)
def test_any_infos_are_taken(success: bool, sent: list[dict[str, Any]]) -> None:
    result = wire.result_from_json({"success": success, "info": sent})
    assert len(result.info) == len(sent)
    assert (result.reason is None) == success


@given(st.dictionaries(st.text(max_size=200), st.text(max_size=3_000), max_size=60), st.integers(1, 40))
def test_no_info_is_kept_that_is_larger_than_the_bound(info: dict[str, Any], times: int) -> None:
    (kept,) = wire.result_from_json(
        {"success": True, "info": [{name: text * times for name, text in info.items()}]}
    ).info
    assert len(json.dumps(kept)) <= wire.MAX_INFO + 100


def test_a_heartbeat_of_nothing_is_not_one_of_no_jobs() -> None:
    assert wire.running_from_json(None, "w") is None
    assert wire.running_from_json({}, "w") is None
    assert wire.running_from_json({"running": []}, "w") == []


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


def summary(state: RunState = RunState.STUDENTS, started: datetime | None = NOW, **counts: int) -> RunSummary:
    return RunSummary(
        queued={},
        run=replace(RUN, state=state, started_at=started),
        counts={JobState(name): number for name, number in counts.items()},
        reasons={Reason.TIMEOUT: 1},
        pre_processing_job=None,
        post_processing_job=None,
    )


@pytest.mark.parametrize(
    ("given_summary", "eta"),
    [
        (summary(succeeded=1, failed=1, queued=6), 30),
        (summary(queued=6), None),
        (summary(succeeded=8), None),
        (summary(started=None, waiting=8, succeeded=1), None),
        (summary(state=RunState.FAILED, cancelled=5, queued=1), None),
    ],
)
def test_the_time_left_is_what_the_others_took(given_summary: RunSummary, eta: int | None) -> None:
    assert wire.summary_to_json(given_summary, NOW + timedelta(seconds=10))["eta_seconds"] == eta


def test_every_state_is_counted() -> None:
    assert set(wire.summary_to_json(summary(), NOW)["counts"]) == {state.value for state in JobState}


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


# --- results ---------------------------------------------------------------------------------------------------------

RESULTS = sample("result_request")["info"][1]["results"]


def reported(*infos: dict[str, Any], success: bool = True) -> Result:
    return wire.result_from_json({"success": success, "info": list(infos)})


def test_results_are_kept_apart_from_the_info() -> None:
    result = reported({"exit_code": 0}, {"exit_code": 0, "results": RESULTS})
    assert (result.success, result.results) == (True, RESULTS)
    assert result.info == ({"exit_code": 0}, {"exit_code": 0})


@pytest.mark.parametrize(
    ("results", "path"),
    [
        ({}, "$"),
        (RESULTS | {"score": None}, "$.score"),
        (RESULTS | {"score": 1e14}, "$.score"),
        (RESULTS | {"tests": [{"score": 1}]}, "$.tests[0]"),
        (RESULTS | {"colour": 1}, "$"),
        (RESULTS | {"output": "x" * MAX_BYTES}, "$"),
    ],
)
def test_a_success_with_results_that_are_none_is_the_workers_fault(results: dict[str, Any], path: str) -> None:
    result = reported({"exit_code": 0, "results": results})
    assert (result.success, result.reason, result.results) == (False, Reason.RUNTIME_ERROR, None)
    assert {fault["path"] for fault in result.info[0]["results_errors"]} == {path}
    assert reported({"reason": "timeout", "results": results}, success=False).reason is Reason.TIMEOUT


def test_what_a_worker_says_is_wrong_with_results_is_kept_within_bounds() -> None:
    long = {"path": "$." + "x" * 5_000, "message": "y" * 5_000, "more": 1}
    result = reported({"results_errors": [long, 7] + [long] * 50, "junk": "z" * 1_000_000}, success=False)
    assert result.info[0]["info_truncated"]
    kept = result.info[0]["results_errors"]
    assert len(kept) == 19
    assert {(len(fault["path"]), len(fault["message"])) for fault in kept} == {(500, 500)}


@given(success=st.booleans(), results=anything, errors=anything)
def test_any_results_are_taken_or_refused_within_the_info(success: bool, results: Any, errors: Any) -> None:
    result = reported({"results": results, "results_errors": errors}, success=success)
    assert (result.reason is None) == result.success
    assert result.results is None or result.results["score"] is not None
