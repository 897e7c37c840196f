"""The course config: the operator's file of courses and their tokens, in the form of the last release.

`{"cs241": {"tokens": ["…"], "query_tokens": ["…"], "weight": 1}}`, each field optional.
"""

from __future__ import annotations

from pathlib import Path

from broadway_api import json_body
from broadway_api.errors import InvalidInput, NotJson
from broadway_api.schemas import COURSE_CONFIG
from broadway_api.tenants import Course, digest
from broadway_api.validation import Validator

_course_config = Validator(COURSE_CONFIG, mask="what stands here")


class CourseConfigFault(Exception):
    """A course config that cannot be used: which file, where in it, and why, in one line without any token."""


def read(path: Path) -> list[Course]:
    """The courses of a file. Raises CourseConfigFault."""
    try:
        value = json_body.parse(path.read_bytes())
        _course_config.check(value)
    except OSError as error:
        raise CourseConfigFault(f"{path} cannot be read: {error.strerror}") from None
    except NotJson as fault:
        raise CourseConfigFault(
            f"{path}: line {fault.line}, column {fault.column}: not JSON: {fault.problem}"
        ) from None
    except InvalidInput as fault:
        raise CourseConfigFault(f"{path}: {first_fault(fault)}") from None
    return [
        Course(
            id=course_id,
            weight=float(entry.get("weight", 1)),
            tokens=frozenset(map(digest, entry.get("tokens", ()))),
            query_tokens=frozenset(map(digest, entry.get("query_tokens", ()))),
        )
        for course_id, entry in value.items()
    ]


def first_fault(refused: InvalidInput) -> str:
    """Where and what, in one line."""
    fault = refused.faults[0]
    more = len(refused.faults) - 1 + refused.more
    return f"{fault.path}: {fault.message}" + (f" (and {more} more)" if more else "")
