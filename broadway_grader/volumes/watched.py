"""/job as a plain directory that is counted while stages run, for graders that may not mount anything."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from pathlib import Path

from broadway_grader.removal import remove_tree
from broadway_grader.volumes.mounted import JOB
from broadway_grader.volumes.port import Bound
from broadway_grader.volumes.usage import overrun

log = logging.getLogger(__name__)

#: Seconds between two counts, at least …
INTERVAL = 0.2
#: … and in proportion to what a count takes, so that a large tree does not cost a CPU.
PATIENCE = 4.0


class WatchedVolumes:
    """Makes directories. For every user, everywhere; what is written between two counts is over the bound."""

    name = "watch"

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        # One at a time: each holds as many files open as its tree is deep.
        self._counting = threading.Lock()

    def open(self) -> str:
        """Nothing can be wrong with it."""
        return f"a directory for each job, whose stages are stopped when they are seen to exceed {self._bound}"

    def make(self, directory: Path) -> WatchedVolume:
        """A fresh directory. Raises OSError."""
        directory.mkdir(mode=0o700)
        job = directory / JOB
        job.mkdir()
        job.chmod(0o777)  # whatever the umask
        return WatchedVolume(directory, self._bound, self._counting)


class WatchedVolume:
    """A directory on the work directory's own file system."""

    def __init__(self, directory: Path, bound: Bound, counting: threading.Lock) -> None:
        self.path = directory / JOB
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._directory = directory
        self._bound = bound
        self._counting = counting
        self._removed = False

    async def overflow(self) -> str:
        """Count again and again until there is too much."""
        while True:
            begun = time.monotonic()
            if verdict := await asyncio.to_thread(self._count):
                return verdict
            await asyncio.sleep(max(INTERVAL, PATIENCE * (time.monotonic() - begun)))

    def overrun(self, *, failed: bool) -> str | None:
        """The verdict on what a stage has left, whether it failed or not: with a true bound it would have."""
        del failed
        return self._count()

    def remove(self) -> None:
        """Remove the files one by one. Raises OSError at the first that stays."""
        with self._counting:  # a count that nobody waits for any more may still be using the descriptor
            self._removed = True
            os.close(self.descriptor)
        remove_tree(self._directory)

    def _count(self) -> str | None:
        with self._counting:
            if self._removed:
                return None
            try:
                return overrun(self.descriptor, self._bound)
            except OSError as error:
                # Not ours to read: it is the stage of a user other than ours, with a grader that is not root.
                log.warning("cannot count what is in %s: %s", self.path, error)
                return None
