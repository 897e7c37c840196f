"""A stage's results as graders report them: the normal form of docs/protocol.md, checked again. Pure.

A worker is trusted half: it may be of another release, or broken. What it says came of a job is believed; that it is
a result, is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice

from broadway_api.errors import Fault
from broadway_api.schemas import Schema
from broadway_api.validation import MAX_FAULTS, Validator

#: Bytes of compact JSON. With the largest roster entry it fits into a document of MongoDB.
MAX_BYTES = 2_000_000
MAX_TESTS = 10_000

#: Of a total; a single score is at most 10⁹.
_MAX_SCORE = 1e13

_SCORE: Schema = {"type": "number", "minimum": -_MAX_SCORE, "maximum": _MAX_SCORE}
_OPTIONAL_SCORE: Schema = _SCORE | {"type": ["number", "null"]}
_FORMAT: Schema = {"enum": ["text", "html", "simple_format", "md", "ansi"]}
_VISIBILITY: Schema = {"enum": ["visible", "hidden", "after_due_date", "after_published"]}

TEST: Schema = {
    "title": "Test",
    "type": "object",
    "required": ["score", "max_score"],
    "properties": {
        "score": _OPTIONAL_SCORE,
        "max_score": _OPTIONAL_SCORE,
        "status": {"enum": ["passed", "failed"]},
        "name": {"type": "string"},
        "name_format": _FORMAT,
        "number": {"type": "string"},
        "output": {"type": "string"},
        "output_format": _FORMAT,
        "tags": {"type": "array", "items": {"type": "string"}},
        "visibility": _VISIBILITY,
        "extra_data": {"type": "object"},
    },
    "additionalProperties": False,
}

RESULTS: Schema = {
    "title": "Results",
    "type": "object",
    "required": ["score", "max_score", "tests"],
    "properties": {
        "score": _SCORE,
        "max_score": _OPTIONAL_SCORE,
        "execution_time": _SCORE | {"description": "seconds"},
        "output": {"type": "string"},
        "output_format": _FORMAT,
        "visibility": _VISIBILITY,
        "stdout_visibility": _VISIBILITY,
        "extra_data": {"type": "object"},
        "tests": {"type": "array", "maxItems": MAX_TESTS, "items": TEST},
        "leaderboard": {
            "type": "array",
            "maxItems": 100,
            "items": {
                "type": "object",
                "required": ["name", "value", "order"],
                "properties": {
                    "name": {"type": "string"},
                    "value": {"type": ["number", "string"]},
                    "order": {"enum": ["asc", "desc"]},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}

_validator = Validator(RESULTS)


def results_faults(results: object) -> list[Fault]:
    """What is wrong with a stage's results, the first faults of it; empty if nothing is."""
    faults = list(islice(_validator.faults(results), MAX_FAULTS))
    if not faults:
        size = len(json.dumps(results, ensure_ascii=False, separators=(",", ":")).encode())
        if size > MAX_BYTES:
            faults = [Fault(path="$", message=f"{size} bytes of results; at most {MAX_BYTES} are taken")]
    return faults


def errors_from_json(errors: object) -> list[dict[str, str]]:
    """What a worker says is wrong with a stage's results, within bounds; what does not look like it is left out."""
    listed = errors if isinstance(errors, Sequence) and not isinstance(errors, str) else ()
    return [
        {name: str(error.get(name, ""))[:500] for name in ("path", "message")}
        for error in islice(listed, MAX_FAULTS)
        if isinstance(error, Mapping)
    ]


def errors_to_json(faults: Sequence[Fault]) -> list[dict[str, str]]:
    """Faults as a stage's info has them."""
    return [{"path": fault.path, "message": fault.message} for fault in faults]
