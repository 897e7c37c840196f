"""JSON as we write it, for clients and into stores. What comes in is read more strictly, in `json_body.py`."""

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
