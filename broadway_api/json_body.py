"""Request bodies as JSON (RFC 8259), read strictly: what two parsers could read differently is refused (RFC 7493)."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from json.decoder import JSONArray, JSONObject  # type: ignore[attr-defined]  # the parts of the Python scanner
from typing import Any, cast

from broadway_api.errors import Fault, InvalidInput, NotJson

#: Arrays and objects within one another. People write ten; what comes after us here recurses.
MAX_DEPTH = 100

#: Characters that are read in one go. Python's scanner holds the interpreter, and with it the event loop, until it has
#: read all that it was given: 32 MB of small lists take it ten seconds.
MAX_HASTE = 65_536

#: Values in one body; an array or object counts as several, since it costs more. A class of 50,000 students with 15
#: variables each has as many.
MAX_VALUES = 1_000_000
_CONTAINER = 4

#: How the escape of a half begins, and that of a whole pair. Whatever has none has no surrogates: UTF-8 encodes none.
_SURROGATE = re.compile(r"\\u[dD]")


def parse(body: bytes, *, mend_text: bool = False) -> Any:
    """The value that the body holds.

    Refused beside what is no JSON: a name twice in one object, numbers that no double can hold, nesting beyond
    MAX_DEPTH, and halves of surrogate pairs, which no text in UTF-8 can contain; `mend_text` puts U+FFFD in place of
    those instead. Raises NotJson, InvalidInput.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line, column = _position(body[: error.start].decode(errors="replace"))
        raise NotJson("bytes that are not UTF-8", line=line, column=column) from None
    try:
        value = (_DECODER if len(text) <= MAX_HASTE else _PatientDecoder()).decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(error.msg, line=error.lineno, column=error.colno) from None
    except _Constant as constant:
        before = text[: _constant_start(text)]
        line, column = _position(before)
        raise NotJson(f"{constant}, write a number or text in quotes", line=line, column=column) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise InvalidInput([Fault(path="$", message="an integer of more than 4,300 digits")]) from None
    _refuse_depth(value)
    if "\\" in text and _SURROGATE.search(text):
        return _mend(value) if mend_text else _refuse_surrogates(value)
    return value


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidInput([Fault(path="$", message=f"the name {twice[:80]!r} stands twice in one object")])
    return value


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidInput([Fault(path="$", message=f"the number {text[:40]} is too large")])
    return value


class _Constant(Exception):
    """NaN or Infinity, which Python reads and JSON has not."""


def _constant(name: str) -> float:
    raise _Constant(name)


def _constant_start(text: str) -> int:
    """Where the first NaN or Infinity stands that is not within a string."""
    tokens = re.finditer(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN', text)
    return next((token.start() for token in tokens if not token[0].startswith('"')), 0)


def _refuse_depth(value: Any) -> None:
    """Level by level, since a recursion would fail where it should find out."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        deeper = []
        for outer in level:
            for inner in outer.values() if type(outer) is dict else outer:
                kind = type(inner)  # asked for by `is`, as often as a body has values
                if kind is dict or kind is list:
                    deeper.append(inner)
        if not deeper:
            return
        level = deeper
    raise _too_deep()


def _too_deep() -> InvalidInput:
    return InvalidInput([Fault(path="$", message=f"arrays and objects nested more than {MAX_DEPTH} deep")])


class _Decoder(json.JSONDecoder):
    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)


class _PatientDecoder(_Decoder):
    """Comes back to Python between any two values, where other threads get their turn; for one body of MAX_VALUES."""

    def __init__(self) -> None:
        super().__init__()
        scalar = cast(Callable[[str, int], Any], vars(self)["scan_once"])
        names: dict[str, str] = {}
        left = MAX_VALUES

        def scan(text: str, at: int) -> Any:
            nonlocal left
            opening = text[at : at + 1]
            left -= _CONTAINER if opening in ("{", "[") else 1
            if left < 0:
                raise InvalidInput([Fault(path="$", message=f"more than {MAX_VALUES} values")])
            if opening == "{":
                return JSONObject((text, at + 1), True, scan, None, _object, names)
            if opening == "[":
                return JSONArray((text, at + 1), scan)
            return scalar(text, at)

        self.scan_once = scan


_DECODER = _Decoder()


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
