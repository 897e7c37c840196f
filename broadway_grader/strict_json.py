"""JSON that somebody else wrote, read strictly (RFC 7493): what two readers could take for different values is refused.

Also refused is what is trouble further on: NUL characters, halves of surrogate pairs, nesting without end.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

#: Arrays and objects within one another. People write ten; what comes after us recurses.
MAX_DEPTH = 100

Place = Sequence[str | int]


class NotStrict(ValueError):
    """The text is no JSON, or JSON that is refused; `place` is the way to the fault, as far as it is known."""

    def __init__(self, message: str, place: Place = ()) -> None:
        super().__init__(message)
        self.place = place


def parse(content: bytes) -> Any:
    """The value that `content` holds. Raises NotStrict, and nothing else, whatever the bytes are."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise NotStrict(f"not UTF-8 at byte {error.start}") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotStrict(f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise NotStrict(f"nested more than {MAX_DEPTH} deep") from None
    _check_inner(value)
    return value


def json_path(place: Place) -> str:
    """A place in a JSON value as a JSONPath (RFC 9535)."""
    path = "$"
    for step in place:
        if isinstance(step, str) and step.isidentifier() and step.isascii():
            path += f".{step}"
        else:
            path += f"[{json.dumps(step)}]"
    return path


def _check_inner(value: Any) -> None:
    """Without recursion, which would fail where it should find out."""
    level: list[tuple[Place, Any]] = [((), value)]
    for _ in range(MAX_DEPTH + 1):
        below: list[tuple[Place, Any]] = []
        for place, item in level:
            if isinstance(item, dict):
                for name, member in item.items():
                    _check_text(name, place)
                    below.append(((*place, name), member))
            elif isinstance(item, list):
                below += [((*place, index), member) for index, member in enumerate(item)]
            elif isinstance(item, str):
                _check_text(item, place)
        if not below:
            return
        level = below
    raise NotStrict(f"nested more than {MAX_DEPTH} deep")


def _check_text(text: str, place: Place) -> None:
    if "\0" in text:
        raise NotStrict("a NUL character in a text", place)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotStrict("half of a surrogate pair (\\ud800 to \\udfff) in a text", place) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise NotStrict(f"the name {json.dumps(twice[:80])} stands twice in one object")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise NotStrict(f"the number {text[:40]} is too large")
    return value


def _int(text: str) -> int:
    _float(text)  # of any length; int() is slow with many digits, and refuses 4,301
    return int(text)


def _constant(name: str) -> float:
    raise NotStrict(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant)
