"""Which user a stage is that does not say: one per slot, so that jobs side by side share no user and none is root."""

from __future__ import annotations

import os
import re
from typing import Literal

#: A range of ids with one per slot, or `image`: whatever the image says; or `auto`: see `user_of_slot`.
StageUsers = range | Literal["auto", "image"]

#: Ids beyond every range that distributions hand out to people, services or containers: these users own nothing. As
#: many as a grader may have slots.
DEFAULT_USERS = range(2_000_000_000, 2_000_001_024)

_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
#: The highest id there is; the one above means "none" to the kernel.
_HIGHEST = 2**32 - 2


def parse_users(text: str, *, slots: int) -> StageUsers:
    """Read `auto`, `image`, `FIRST-LAST` or, for one slot, `FIRST`; ValueError for anything else."""
    if text == "auto":
        return "auto"
    if text == "image":
        return "image"
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is neither auto, image nor a range of user ids such as 20000-20063")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last <= _HIGHEST:
        raise ValueError(f"{text!r} is no range of user ids between 1 and {_HIGHEST}")
    if last - first + 1 < slots:
        raise ValueError(f"{text!r} has {last - first + 1} user ids for {slots} slots")
    return range(first, last + 1)


def user_of_slot(users: StageUsers, slot: int) -> str | None:
    """The `uid:gid` that a slot's stages run as; None: what their image says.

    A grader that is not root can remove only its own files, so by default its stages run as itself.
    """
    if users == "image":
        return None
    if users == "auto" and os.geteuid() != 0:
        return f"{os.geteuid()}:{os.getegid()}"
    number = host_user(users, slot)
    # With its group: a user without one would be in the group of root.
    return f"{number}:{number}"


def host_user(users: StageUsers, slot: int) -> int:
    """The number of the slot's own user, where there is to be one whatever an image says."""
    return (users if isinstance(users, range) else DEFAULT_USERS)[slot]


def is_surely_not_root(user: str) -> bool:
    """Whether `user[:group]` is another than root, whatever the image's passwd says: only a number is sure to be."""
    name = user.partition(":")[0]
    return name.isdecimal() and int(name) != 0
