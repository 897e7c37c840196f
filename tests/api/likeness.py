"""Whether an answer is as a sample says, whatever its ids and times are."""

from __future__ import annotations

from typing import Any

#: Maps of the caller's own names: compared by value, not by shape.
VALUES = {"student", "students", "env", "labels", "reasons", "counts", "state", "reason", "type", "attempt", "stage"}
VALUES |= {
    "score",
    "max_score",
    "tests",
    "leaderboard",
    "extra_data",
    "results_errors",
    "entry_point",
    "image",
    "timeout",
    "stdout",
    "stderr",
    "exit_code",
    "truncated",
    "message",
}


def assert_like(expected: Any, actual: Any, path: str = "$") -> None:
    """The same names, types and lengths; ids and times may differ."""
    name = path.rpartition(".")[2].partition("[")[0]
    if name in VALUES:
        assert actual == expected, path
    elif isinstance(expected, dict):
        assert isinstance(actual, dict), path
        assert list(actual) == list(expected), path
        for key, value in expected.items():
            assert_like(value, actual[key], f"{path}.{key}")
    elif isinstance(expected, list):
        assert isinstance(actual, list), path
        assert len(actual) == len(expected), path
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            assert_like(one, other, f"{path}[{index}]")
    else:
        assert type(actual) is type(expected), f"{path}: {actual!r}, not {expected!r}"
