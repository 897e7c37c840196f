"""A /job on a file system of its own, whose size and number of files the kernel bounds."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path

from broadway_grader.volumes.mounts import detach
from broadway_grader.volumes.port import Bound

log = logging.getLogger(__name__)

#: Bytes below which a file system counts as full, or this share of it: a large write is refused as a whole where the
#: page cache keeps files in large pieces, which are up to 2 MiB.
FULL, FULL_SHARE = 2 * 1024**2, 8
JOB = "job"

_FS_IOC_SHUTDOWN = 0x8004587D  # asm-generic/ioctl.h: _IOR('X', 125, u32); linux/fs.h
_WITHOUT_WRITING = 2


class MountedVolume:
    """A file system mounted at a directory, with /job as a directory in it.

    Not its root: that one stays ours, and where a mount is not seen by an engine's daemon, there is no `job` to be
    found by it, which fails loudly, while an empty directory would be taken for /job.
    """

    def __init__(self, directory: Path, bound: Bound, free: Callable[[], None]) -> None:
        """Take over what is mounted at `directory`; `free` gives back what it is kept in. Raises OSError."""
        self.path = directory / JOB
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._directory = directory
        self._bound = bound
        self._free = free

    async def overflow(self) -> str:
        """Never: the kernel lets nobody use more than there is."""
        await asyncio.Event().wait()
        raise AssertionError

    def overrun(self, *, failed: bool) -> str | None:
        """The verdict on a stage that failed and has left no room."""
        if not failed:
            return None
        left = os.fstatvfs(self.descriptor)
        # Not f_bfree: of that, a part is for the file system alone.
        if left.f_bavail * left.f_frsize < min(FULL, self._bound.bytes // FULL_SHARE):
            return self._bound.too_large
        return self._bound.too_many if left.f_ffree == 0 else None

    def remove(self) -> None:
        """Throw the file system away as a whole: what is in it costs nothing, however much and odd it is."""
        # Else unmounting would write what nobody wants to see any more. Not every file system can do it.
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.descriptor, _FS_IOC_SHUTDOWN, struct.pack("=I", _WITHOUT_WRITING))
        os.close(self.descriptor)
        try:
            detach(self._directory)
        finally:
            self._free()
        self._directory.rmdir()
