"""Processes that a killed grader left behind, found by a word in their command lines."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path


def end_all_with(word: str, seconds: float) -> int:
    """Kill every process that has `word` among its arguments; how many there were.

    Returns when the last of them has ended; TimeoutError if it has not within that many seconds. Blocks.
    """
    deadline = time.monotonic() + seconds
    ended = 0
    while processes := list(_processes_with(word)):  # again: one that was being forked was not seen yet
        with contextlib.ExitStack() as descriptors:
            for process in processes:
                descriptors.callback(os.close, process)
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            for process in processes:
                poll = select.poll()
                poll.register(process, select.POLLIN)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise TimeoutError(
                        f"a process of an earlier life does not end within {seconds:g} s of being killed"
                    )
        ended += len(processes)
    return ended


def _processes_with(word: str) -> Iterator[int]:
    """A pidfd of each. Opened before the look at its arguments, so that both are of the same process."""
    wanted = os.fsencode(word)
    for path in Path("/proc").glob("[0-9]*"):
        try:
            process = os.pidfd_open(int(path.name))
        except OSError:
            continue  # ended since
        try:
            found = wanted in (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            found = False
        if found:
            yield process
        else:
            os.close(process)
