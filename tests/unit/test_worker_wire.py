"""Results of all ages of graders, and the jobs that they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadway_api import json_text, worker_wire
from broadway_api.domain import Reason, Result
from broadway_api.results import MAX_BYTES

SAMPLES = Path(__file__).parents[1] / "samples"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def test_output_is_kept_apart_from_the_info() -> None:
    result = worker_wire.result_from_json(sample("result_request"))
    assert [(log.stage, log.stdout, log.stderr) for log in result.logs] == [
        (0, "fetched\n", ""),
        (1, "score 9/10\n", "warning: slow\n"),
    ]
    assert all("stdout" not in info and "stderr" not in info for info in result.info)
    assert result.info[1]["cpu_seconds"] == 0.75
    assert (result.success, result.reason) == (True, None)


def test_a_stage_that_printed_nothing_has_no_log() -> None:
    result = worker_wire.result_from_json(
        {"success": True, "info": [{"stdout": "", "stderr": ""}, {}, {"stdout": "x"}]}
    )
    assert [log.stage for log in result.logs] == [2]


@pytest.mark.parametrize("output", [None, 7, ["x"], {"x": "y"}])
def test_output_that_is_no_text_is_an_info_like_others(output: Any) -> None:
    result = worker_wire.result_from_json({"success": True, "info": [{"stdout": output}]})
    assert (result.logs, result.info) == ((), ({"stdout": output},))


def test_what_was_sent_is_not_changed() -> None:
    sent = sample("result_request")
    worker_wire.result_from_json(sent)
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
    assert worker_wire.result_from_json({"success": False} | data).reason is reason


def test_a_success_has_no_reason_whatever_is_said() -> None:
    assert (
        worker_wire.result_from_json({"success": True, "reason": "timeout", "info": [{"reason": "timeout"}]}).reason
        is None
    )


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(value=_VALUES | st.integers(-(10**400), 10**400), most=st.integers(0, 600))
@example(value="\U0001f600" * 100, most=1_100)
def test_a_value_is_short_if_its_json_is(value: Any, most: int) -> None:
    assert worker_wire._is_short(value, most) == (len(json.dumps(value)) <= most)


@given(value=_VALUES | st.integers(-(10**400), 10**400))
@example(value=["é\U0001f600", [], {"": 1e-5}, [1e16, 0]])
def test_no_value_is_more_than_three_times_as_long_with_spaces_and_escapes(value: Any) -> None:
    assert len(json.dumps(value)) <= 3 * len(json_text.encode(value))


def test_a_huge_info_is_cut_to_its_short_values() -> None:
    info = {"exit_code": 1, "reason": "stage_failed", "blob": "x" * 1_000_000, "message": "short"}
    (kept,) = worker_wire.result_from_json({"success": False, "info": [info]}).info
    assert kept == {"exit_code": 1, "reason": "stage_failed", "message": "short", "info_truncated": True}


def test_the_reason_of_a_huge_info_counts() -> None:
    fields = {f"field{number}": "x" * 900 for number in range(500)}
    result = worker_wire.result_from_json({"success": False, "info": [fields | {"reason": "timeout"}]})
    assert result.reason is Reason.TIMEOUT
    assert len(json.dumps(result.info[0])) <= worker_wire.MAX_INFO


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
    result = worker_wire.result_from_json({"success": success, "info": sent})
    assert len(result.info) == len(sent)
    assert (result.reason is None) == success


@given(st.dictionaries(st.text(max_size=200), st.text(max_size=3_000), max_size=60), st.integers(1, 40))
def test_no_info_is_kept_that_is_larger_than_the_bound(info: dict[str, Any], times: int) -> None:
    (kept,) = worker_wire.result_from_json(
        {"success": True, "info": [{name: text * times for name, text in info.items()}]}
    ).info
    assert len(json.dumps(kept)) <= worker_wire.MAX_INFO + 100


def test_a_heartbeat_of_nothing_is_not_one_of_no_jobs() -> None:
    assert worker_wire.running_from_json(None, "w") is None
    assert worker_wire.running_from_json({}, "w") is None
    assert worker_wire.running_from_json({"running": []}, "w") == []


RESULTS = sample("result_request")["info"][1]["results"]


def reported(*infos: dict[str, Any], success: bool = True) -> Result:
    return worker_wire.result_from_json({"success": success, "info": list(infos)})


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
