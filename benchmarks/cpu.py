"""CPU time of processes with all that they started, from /proc. Linux only."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that these processes and their descendants, ended ones included, have used so far.

    In steps of a hundredth of a second each. Raises ProcessLookupError if one of `pids` has ended.
    """
    children: dict[int, list[int]] = defaultdict(list)
    used: dict[int, int] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                text = (directory / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):  # it has ended since
                continue
            fields = text.rpartition(")")[2].split()  # the name, in parentheses, may contain anything
            pid = int(directory.name)
            children[int(fields[1])].append(pid)
            used[pid] = sum(map(int, fields[11:15]))  # own and waited-for children's, user and system
    total, left = 0, list(pids)
    while left:
        pid = left.pop()
        if pid not in used:
            raise ProcessLookupError(pid)
        total += used[pid]
        left += children[pid]
    return total / _TICK
