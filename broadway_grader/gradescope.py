"""Results in the shape of Gradescope's results.json, checked and brought into one form.

The shape and its rules are those of https://gradescope-autograders.readthedocs.io/en/latest/specs/ (output format):
a score at the top level overrides the total of the tests; without one every test needs its own. A test without a
visibility or a format takes that of the top level. `null` is the same as left out, unknown names are ignored, and
`max_score` at the top level is ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import jsonschema_rs

from broadway_grader import strict_json
from broadway_grader.errors import Fault, InvalidResults

#: How many faults of a file are reported.
MAX_FAULTS = 20
#: The most that the wire contract takes, in bytes of compact JSON: what comes out may be longer than what went in.
MAX_WIRE_BYTES = 2_000_000
MAX_TESTS = 10_000

#: No score is near it, and sums of it are exact enough.
_MAX_NUMBER = 1e9
#: Decimal places of a total: 0.1 + 0.2 is 0.3 on a grade sheet.
_PLACES = 9

_TEXT = {"type": ["string", "null"]}
_NUMBER = {"type": ["number", "null"], "minimum": -_MAX_NUMBER, "maximum": _MAX_NUMBER}
_FORMAT = {"enum": ["text", "html", "simple_format", "md", "ansi", None]}
_VISIBILITY = {"enum": ["visible", "hidden", "after_due_date", "after_published", None]}
_OBJECT = {"type": ["object", "null"]}

_TEST = {
    "type": "object",
    "properties": {
        "score": _NUMBER,
        "max_score": _NUMBER,
        "status": {"enum": ["passed", "failed", None]},
        "name": _TEXT,
        "name_format": _FORMAT,
        "number": {"type": ["string", "number", "null"]},
        "output": _TEXT,
        "output_format": _FORMAT,
        "tags": {"type": ["array", "null"], "items": {"type": "string"}},
        "visibility": _VISIBILITY,
        "extra_data": _OBJECT,
    },
}

_RANKED = {
    "type": "object",
    "required": ["name", "value"],
    "properties": {
        "name": {"type": "string"},
        "value": {"type": ["number", "string"]},
        "order": {"enum": ["asc", "desc", None]},
    },
}

_RESULTS = {
    "type": "object",
    "properties": {
        "score": _NUMBER,
        "max_score": _NUMBER,
        "execution_time": _NUMBER,
        "output": _TEXT,
        "output_format": _FORMAT,
        "test_output_format": _FORMAT,
        "test_name_format": _FORMAT,
        "visibility": _VISIBILITY,
        "stdout_visibility": _VISIBILITY,
        "extra_data": _OBJECT,
        "tests": {"type": ["array", "null"], "maxItems": MAX_TESTS, "items": _TEST},
        "leaderboard": {"type": ["array", "null"], "maxItems": 100, "items": _RANKED},
    },
}

_VALIDATOR = jsonschema_rs.Draft202012Validator(_RESULTS)

_KEPT = ("execution_time", "output", "output_format", "visibility", "stdout_visibility", "extra_data")
#: Of a test, and the field of the top level that speaks for it where it says nothing.
_KEPT_OF_TEST = {
    "status": None,
    "name": None,
    "name_format": "test_name_format",
    "number": None,
    "output": None,
    "output_format": "test_output_format",
    "tags": None,
    "visibility": "visibility",
    "extra_data": None,
}


def parse_results(content: bytes) -> dict[str, Any]:
    """The results that `content` holds, normalised as docs/protocol.md has them.

    Raises InvalidResults, and nothing else, whatever the bytes are.
    """
    try:
        data = strict_json.parse(content)
    except strict_json.NotStrict as error:
        raise InvalidResults([Fault(path=strict_json.json_path(error.place), message=str(error))]) from None
    faults = list(_shape_faults(data)) or list(_score_faults(data))
    if faults:
        raise InvalidResults(faults[:MAX_FAULTS], more=len(faults[MAX_FAULTS:]))
    results = _normalised(data)
    size = len(json.dumps(results, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_WIRE_BYTES:
        raise InvalidResults([Fault(path="$", message=f"{size} bytes of results; at most {MAX_WIRE_BYTES} are taken")])
    return results


def _shape_faults(data: object) -> Iterator[Fault]:
    if _VALIDATOR.is_valid(data):
        return
    # Bounded: ten thousand tests may all be wrong, and each message is made by quoting.
    for error in islice(_VALIDATOR.iter_errors(data), 1_000):
        yield Fault(path=strict_json.json_path(error.instance_path), message=_short(error.message))


def _score_faults(data: Mapping[str, Any]) -> Iterator[Fault]:
    if data.get("score") is not None:
        return
    tests = data.get("tests") or ()
    if not tests:
        yield Fault(path="$", message="neither a score nor tests with scores")
    for index, test in enumerate(tests):
        if test.get("score") is None:
            yield Fault(path=f"$.tests[{index}].score", message="missing, and there is no score at the top level")


def _normalised(data: Mapping[str, Any]) -> dict[str, Any]:
    tests = [_normalised_test(test, data) for test in data.get("tests") or ()]
    score, max_score = data.get("score"), data.get("max_score")
    most = [test["max_score"] for test in tests]
    if max_score is None and most and None not in most:
        max_score = _total(most)
    results = {"score": _total([test["score"] for test in tests]) if score is None else score, "max_score": max_score}
    results |= {name: data[name] for name in _KEPT if data.get(name) is not None}
    results["tests"] = tests
    if data.get("leaderboard"):
        results["leaderboard"] = [
            {"name": ranked["name"], "value": ranked["value"], "order": ranked.get("order") or "desc"}
            for ranked in data["leaderboard"]
        ]
    return results


def _normalised_test(test: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    normalised: dict[str, Any] = {"score": test.get("score"), "max_score": test.get("max_score")}
    for name, general in _KEPT_OF_TEST.items():
        value = test.get(name)
        if value is None and general is not None:
            value = top.get(general)
        if value is not None:
            normalised[name] = value
    number = normalised.get("number")
    if number is not None and not isinstance(number, str):
        normalised["number"] = json.dumps(number)
    return normalised


def _total(numbers: Sequence[float]) -> float:
    if all(isinstance(number, int) for number in numbers):
        return sum(numbers)
    return round(math.fsum(numbers), _PLACES)


def _short(message: str) -> str:
    """Without the middle, where a validator quotes a whole output."""
    return message if len(message) <= 300 else f"{message[:180]} … {message[-100:]}"
