"""/job in memory: fast, and counted as the memory of whoever writes it, so an operator has to choose it."""

from __future__ import annotations

import uuid
from pathlib import Path

from broadway_grader.volumes.mounted import JOB, MountedVolume
from broadway_grader.volumes.mounts import mount
from broadway_grader.volumes.port import Bound


class TmpfsVolumes:
    """Makes a tmpfs for each job. For root."""

    name = "tmpfs"

    def __init__(self, bound: Bound, directory: Path) -> None:
        """`directory`: in which to try it out."""
        self._bound = bound
        self._trials = directory

    def open(self) -> str:
        """Make one. Raises OSError where that is not allowed."""
        self.make(self._trials / f"trial-{uuid.uuid4().hex}").remove()
        return f"a tmpfs for each job, of {self._bound}, which counts as memory"

    def make(self, directory: Path) -> MountedVolume:
        """A fresh tmpfs at `directory`. Raises OSError."""
        directory.mkdir(mode=0o700)
        # The root and `job` are files as well, ours and not the job's.
        mount("broadway", directory, "tmpfs", f"mode=0700,size={self._bound.bytes},nr_inodes={self._bound.files + 2}")
        job = directory / JOB
        job.mkdir()
        job.chmod(0o777)  # whatever the umask
        return MountedVolume(directory, self._bound, lambda: None)
