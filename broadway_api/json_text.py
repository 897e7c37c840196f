"""JSON as we write it, for clients and into stores, and read it there. What comes in is read in `json_body.py`."""

from __future__ import annotations

import json
from typing import Any

import orjson


def encode(value: Any) -> bytes:
    """The value as compact JSON in UTF-8, every number, key and order exactly. Raises TypeError for what is no JSON."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits, as a rule
        return json.dumps(value, separators=(",", ":")).encode()


def decode(text: str) -> Any:
    """The value of what `encode` wrote, now or in an earlier release."""
    written = text.encode()
    try:
        value = orjson.loads(written)
    except orjson.JSONDecodeError:  # half of a surrogate pair
        return json.loads(text)
    # It makes doubles of large integers, which are then not written as they were read.
    return value if orjson.dumps(value) == written else json.loads(text)
