"""Bodies held against their schemas: each fault with its place, in words for whoever wrote the body."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import jsonschema_rs

from broadway_api.errors import Fault, InvalidInput
from broadway_api.policy import Policy
from broadway_api.schemas import ENV_NAME, Schema, run_config_schema

#: How many faults of a body are reported at a time.
MAX_FAULTS = 20


class Validator:
    """A schema compiled once.

    `options`: the operator's that set some of its limits, by the end of their place; `mask`: what messages say instead
    of the values, where those are secret.
    """

    def __init__(
        self, schema: Schema, *, options: Mapping[tuple[str, str], str] | None = None, mask: str | None = None
    ) -> None:
        self._compiled = jsonschema_rs.Draft202012Validator(schema, mask=mask)
        self._options = options or {}

    def faults(self, value: Any, *, at: Sequence[str | int] = ()) -> Iterator[Fault]:
        """What is wrong with the value, which stands `at` that place in the body; for a list, from that index on."""
        if self._compiled.is_valid(value):  # many times faster than looking for faults
            return
        for error in self._compiled.iter_errors(value):
            yield _fault(error, at, self._options)

    def check(self, value: Any, *, at: Sequence[str | int] = ()) -> None:
        """Raise InvalidInput if there is a fault."""
        if not self._compiled.is_valid(value):
            refuse_if_any(self.faults(value, at=at))


#: Where the schema of a run config holds the value of an operator's option → the option.
_OPTIONS = {
    ("timeout", "maximum"): "--max-stage-timeout",
    ("cpus", "maximum"): "--max-stage-cpus",
    ("pids", "maximum"): "--max-stage-pids",
    ("students", "maxItems"): "--max-students",
    ("student_pipeline", "maxItems"): "--max-stages",
    ("pre_processing_pipeline", "maxItems"): "--max-stages",
    ("post_processing_pipeline", "maxItems"): "--max-stages",
    ("env", "maxProperties"): "--max-env-entries",
    ("items", "maxProperties"): "--max-env-entries",
}


class RunConfigValidator:
    """`run_config_schema`, compiled so that a long roster is looked at a piece at a time.

    The compiled validator holds the interpreter lock while it works; 10,000 faulty entries at once would hold it, and
    with it the event loop, for 150 ms.
    """

    _PIECE = 500  # entries, a few milliseconds

    def __init__(self, policy: Policy) -> None:
        schema = run_config_schema(policy)
        students = schema["properties"]["students"]
        head = schema | {"properties": schema["properties"] | {"students": students | {"items": {}}}}
        self._head = Validator(head, options=_OPTIONS)
        self._entries = Validator({"items": students["items"]}, options=_OPTIONS)

    def check(self, value: Any) -> None:
        """Raise InvalidInput if there is a fault."""
        refuse_if_any(self._faults(value))

    def _faults(self, value: Any) -> Iterator[Fault]:
        yield from self._head.faults(value)
        roster = value.get("students") if isinstance(value, dict) else None
        if not isinstance(roster, list):
            return
        for start in range(0, len(roster), self._PIECE):
            piece = roster[start : start + self._PIECE]
            yield from self._entries.faults(piece, at=("students", start))


def refuse_if_any(faults: Iterator[Fault]) -> None:
    """Raise InvalidInput with the first MAX_FAULTS of the faults, if there are any."""
    distinct = iter(dict.fromkeys(faults))
    first = list(islice(distinct, MAX_FAULTS))
    if first:
        raise InvalidInput(first, more=sum(1 for _ in distinct))


def json_path(steps: Sequence[str | int]) -> str:
    """A place in a JSON value as a JSONPath (RFC 9535)."""
    path = "$"
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.isidentifier() and step.isascii():
            path += f".{step}"
        else:
            path += f"[{step!r}]"
    return path


def _fault(
    error: jsonschema_rs.ValidationError, at: Sequence[str | int], options: Mapping[tuple[str, str], str]
) -> Fault:
    rule = [str(step) for step in error.schema_path]
    if rule[-2:] == ["propertyNames", "pattern"] and ENV_NAME in error.message:
        names = ", ".join(repr(name) for name in cast(Schema, error.instance) if not re.fullmatch(ENV_NAME, name))
        message = f"no environment name (letters, digits and _, no digit first): {_short(names)}"
    elif rule[-1] == "type" and isinstance(error.instance, dict) and "secret" in error.instance:
        message = (
            "a secret may stand only in the env of a stage: every stage gets a run's or a student's, those that run"
            " students' code too, and the roster is shown"
        )
    elif rule[-2:] == ["privileged", "const"]:
        message = "privileged containers own their host; this cluster does not allow them (--allow-privileged)"
    elif rule[-2:] == ["enable_networking", "const"]:
        message = "this cluster gives no stage a network (--no-allow-networking)"
    elif rule[-1:] in (["contains"], ["maxContains"]):
        message = "more than one stage has results; which of them is the grade?"
    elif len(rule) > 1 and (option := options.get((rule[-2], rule[-1]))):
        message = _beyond(error, option)
    elif rule[-1] == "pattern" and "\0" in str(error.instance):
        message = "a NUL character cannot be passed to a program"
    elif rule[-2:] == ["memory", "pattern"]:
        message = f"{_short(error.message).partition(' does not match ')[0]} is no memory of at least 6m, such as 512m"
    else:
        message = _short(error.message)
    return Fault(path=json_path(_place(at, error.instance_path)), message=message)


def _beyond(error: jsonschema_rs.ValidationError, option: str) -> str:
    found = cast(Any, error.instance)
    asked = f"{len(found)} entries are" if isinstance(found, list | dict) else f"{found} is"
    return f"{asked} more than the operator's {option} allows: {cast(Any, error.kind).limit}"


def _place(at: Sequence[str | int], path: Sequence[str | int]) -> list[str | int]:
    """A path within a piece of a list as the path in the body: `at` ends with the index at which the piece begins."""
    if at and path and isinstance(at[-1], int) and isinstance(path[0], int):
        return [*at[:-1], at[-1] + path[0], *path[1:]]
    return [*at, *path]


def _short(message: str) -> str:
    """Without the middle, where a validator quotes a whole roster."""
    return message if len(message) <= 300 else f"{message[:180]} … {message[-100:]}"
