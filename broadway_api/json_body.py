"""Request bodies as JSON (RFC 8259), read strictly: what two parsers could read differently is refused (RFC 7493)."""

from __future__ import annotations

import json
import math
from typing import Any

from broadway_api.errors import Fault, InvalidInput, NotJson


def parse(body: bytes, *, mend_text: bool = False) -> Any:
    """The value that the body holds.

    Refused beside what is no JSON: a name twice in one object, numbers that no double can hold, NaN and Infinity, more
    nesting than Python's stack allows, and halves of surrogate pairs, which no text in UTF-8 can contain; `mend_text`
    puts U+FFFD in place of those instead. Raises NotJson, InvalidInput.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line, column = _position(body[: error.start].decode(errors="replace"))
        raise NotJson("bytes that are not UTF-8", line=line, column=column) from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(error.msg, line=error.lineno, column=error.colno) from None
    except RecursionError:
        raise NotJson("arrays and objects nested too deeply", line=1, column=1) from None
    except ValueError as error:  # an integer with more digits than Python converts (4,300)
        raise InvalidInput([Fault(path="$", message=str(error))]) from None
    if "\\ud" in text or "\\uD" in text:
        return _mend(value) if mend_text else _refuse_surrogates(value)
    return value


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput([Fault(path="$", message=f"the name {twice[:80]!r} stands twice in one object")])
    return value


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidInput([Fault(path="$", message=f"the number {text[:40]} is too large")])
    return value


def _constant(name: str) -> float:
    raise InvalidInput([Fault(path="$", message=f"{name} is not JSON; write a number, or text in quotes")])


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)


def _refuse_surrogates(value: Any) -> Any:
    if _mend(value) != value:
        raise InvalidInput([Fault(path="$", message="half of a surrogate pair (\\ud800 to \\udfff) in a text")])
    return value


def _mend(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_mend(item) for item in value]
        case dict():
            return {_mend(name): _mend(item) for name, item in value.items()}
        case _:
            return value
