"""Ids of runs, jobs and workers: the 24 hexadecimal digits of an ObjectId."""

from __future__ import annotations

import re

from bson import ObjectId

_ID = re.compile(r"[0-9a-f]{24}")


def new_id() -> str:
    """A new id; ids made later by one process sort later."""
    return str(ObjectId())


def is_id(text: str) -> bool:
    """Whether the text has the form of an id, which says nothing of whether such a thing exists."""
    return _ID.fullmatch(text) is not None
