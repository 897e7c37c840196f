"""Files that processes have open in a directory and that have no name any more, so that no listing shows them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from broadway_grader.directories import opened

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def nameless(job: int) -> Iterator[os.stat_result]:
    """The nameless files of the processes whose /job is the open directory `job`, as often as they are open.

    Those of other users' processes are seen by root alone.
    """
    ours = os.fstat(job)
    for process in Path("/proc").glob("[0-9]*"):
        # It may end at any moment, and most of them are nobody's business.
        with contextlib.suppress(OSError):
            # What a process calls /job tells whose it is; a link there is not followed, a stage cannot replace a mount.
            if not os.path.samestat((process / "root" / "job").stat(follow_symlinks=False), ours):
                continue
            with opened(os.open(process / "fd", _OPEN_DIRECTORY)) as descriptors:
                yield from _nameless(descriptors, ours.st_dev)


def _nameless(descriptors: int, device: int) -> Iterator[os.stat_result]:
    for name in os.listdir(descriptors):
        with contextlib.suppress(OSError):
            found = os.stat(name, dir_fd=descriptors)
            if found.st_dev == device and found.st_nlink == 0 and stat.S_ISREG(found.st_mode):
                yield found
