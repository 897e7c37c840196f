"""The parser of results.json: whatever the bytes are, they are results or there is a clear fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadway_grader.errors import InvalidResults
from broadway_grader.gradescope import MAX_FAULTS, MAX_TESTS, MAX_WIRE_BYTES, parse_results

#: Everything that Gradescope's documentation names.
FULL: dict[str, Any] = {
    "score": 44.0,
    "execution_time": 136,
    "output": "for the whole submission",
    "output_format": "simple_format",
    "test_output_format": "md",
    "test_name_format": "text",
    "visibility": "after_due_date",
    "stdout_visibility": "hidden",
    "extra_data": {"commit": "ab12", "deep": [{"x": None}]},
    "tests": [
        {
            "score": 2.0,
            "max_score": 2,
            "status": "passed",
            "name": "adds",
            "name_format": "md",
            "number": "1.1",
            "output": "2 + 2 = 4",
            "output_format": "ansi",
            "tags": ["tag1", "tag2"],
            "visibility": "visible",
            "extra_data": {},
        },
        {"score": 0, "max_score": 3.5, "number": 1.2},
    ],
    "leaderboard": [
        {"name": "Accuracy", "value": 0.926},
        {"name": "Time", "value": 15.1, "order": "asc"},
        {"name": "Stars", "value": "*****"},
    ],
}


def parse(value: object) -> dict[str, Any]:
    return parse_results(json.dumps(value).encode())


def faults(content: object) -> list[tuple[str, str]]:
    with pytest.raises(InvalidResults) as caught:
        parse_results(content if isinstance(content, bytes) else json.dumps(content).encode())
    return [(fault.path, fault.message) for fault in caught.value.faults]


def test_all_that_gradescope_documents_is_kept() -> None:
    results = parse(FULL)
    assert results == {
        **{name: FULL[name] for name in FULL if not name.startswith("test_")},
        "max_score": 5.5,
        "tests": [
            FULL["tests"][0],
            {
                "score": 0,
                "max_score": 3.5,
                "number": "1.2",
                "name_format": "text",
                "output_format": "md",
                "visibility": "after_due_date",
            },
        ],
        "leaderboard": [
            {"name": "Accuracy", "value": 0.926, "order": "desc"},
            {"name": "Time", "value": 15.1, "order": "asc"},
            {"name": "Stars", "value": "*****", "order": "desc"},
        ],
    }


@pytest.mark.parametrize(
    ("given_", "score", "max_score"),
    [
        ({"score": 7}, 7, None),
        ({"score": 7, "max_score": 10}, 7, 10),
        ({"score": 0, "tests": []}, 0, None),
        ({"score": -1.5, "tests": [{"score": 2, "max_score": 3}]}, -1.5, 3),
        ({"tests": [{"score": 1, "max_score": 2}, {"score": 3, "max_score": 4}]}, 4, 6),
        ({"tests": [{"score": 0.1}, {"score": 0.2}]}, 0.3, None),
        ({"tests": [{"score": 1, "max_score": 2}, {"score": 3}]}, 4, None),
        ({"score": None, "max_score": None, "tests": [{"score": 1, "max_score": None, "tags": None}]}, 1, None),
        ({"score": 1, "tests": [{}, {"max_score": 2}], "future": {}}, 1, None),
    ],
)
def test_a_score_at_the_top_overrides_the_total_of_the_tests(
    given_: object, score: float, max_score: float | None
) -> None:
    results = parse(given_)
    assert (results["score"], results["max_score"]) == (score, max_score)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([], "$"),
        ({}, "$"),
        ({"tests": []}, "$"),
        ({"tests": [{"score": 1}, {"max_score": 1}]}, "$.tests[1].score"),
        ({"score": "7"}, "$.score"),
        ({"score": True}, "$.score"),
        ({"score": 1e10}, "$.score"),
        ({"score": 10**300}, "$.score"),
        ({"score": 1, "tests": {}}, "$.tests"),
        ({"score": 1, "tests": [{}, 7]}, "$.tests[1]"),
        ({"score": 1, "tests": [{"status": "ok"}]}, "$.tests[0].status"),
        ({"score": 1, "visibility": "nobody"}, "$.visibility"),
        ({"score": 1, "leaderboard": [{"name": "x"}]}, "$.leaderboard[0]"),
        ({"score": 1, "output": "a\0b"}, "$.output"),
        ({"score": 1, "extra_data": {"a b": ["\ud800"]}}, '$.extra_data["a b"][0]'),
        ({"score": 1, "extra_data": {"x": "é" * (MAX_WIRE_BYTES // 2)}}, "$"),
        ({"score": 1, "tests": [{}] * (MAX_TESTS + 1)}, "$.tests"),
    ],
)
def test_a_fault_has_its_place(value: object, path: str) -> None:
    assert faults(value)[0][0] == path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'{"score": 1,}', "line 1, column 13"),
        (b'{"score": NaN}', "NaN is no JSON"),
        (b'{"score": -Infinity}', "-Infinity is no JSON"),
        (b'{"score": 1e999}', "too large"),
        (b'{"score": 1' + b"0" * 5000 + b"}", "too large"),
        (b'{"score": 1, "score": 2}', '"score" stands twice'),
        (b"[" * 200 + b"]" * 200, "nested more than 100 deep"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (b'{"score": 1} {}', "not JSON"),
    ],
)
def test_json_is_read_strictly(content: bytes, words: str) -> None:
    ((path, message),) = faults(content)
    assert path == "$"
    assert words in message


def test_of_many_faults_twenty_are_told() -> None:
    with pytest.raises(InvalidResults, match=r"and 49 more") as caught:
        parse({"score": 1, "tests": [{"score": []}] * 50})
    assert (len(caught.value.faults), caught.value.more) == (MAX_FAULTS, 30)
    assert len(faults({"score": "x" * 100_000})[0][1]) < 400


def accepted(content: bytes) -> dict[str, Any] | None:
    """What the parser makes of it; None if it finds a fault. Anything else fails the test."""
    try:
        return parse_results(content)
    except InvalidResults as error:
        found = error.faults
    assert 1 <= len(found) <= MAX_FAULTS
    assert all(fault.path.startswith("$") and fault.message for fault in found)
    return None


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([*FULL, *FULL["tests"][0], *FULL["leaderboard"][1]])
#: Close to the real thing, with anything at all in some place of it.
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.just(value) | ANY_JSON for name, value in FULL.items()},
        "max_score": ANY_JSON,
        "tests": st.lists(st.just(FULL["tests"][0]) | st.dictionaries(FIELDS, ANY_JSON, max_size=5), max_size=4),
    },
)


@given(st.binary() | ANY_JSON.map(lambda value: json.dumps(value).encode()))
@example(b"null")
def test_any_bytes_are_results_or_a_fault(content: bytes) -> None:
    accepted(content)


@given(NEARLY)
def test_what_is_accepted_stays_what_it_is(value: object) -> None:
    results = accepted(json.dumps(value).encode())
    if results is not None:
        assert isinstance(results["score"], int | float)
        assert parse(results) == results
