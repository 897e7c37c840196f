"""/job on an ext4 file system of its own, in a sparse file without a name, through a loop device.

Making one takes a millisecond or two: what mke2fs writes into an empty file is kept, some 80 KiB, and written into the
file of each job. Nothing outlives its use, whatever dies: the file has no name, so it goes with its loop device; the
device clears itself with its mount; and mounts are found by where they are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from broadway_grader.errors import SetupError
from broadway_grader.volumes.mounted import JOB, MountedVolume
from broadway_grader.volumes.mounts import detach, mount
from broadway_grader.volumes.port import Bound

#: Seconds that mke2fs may take; it takes milliseconds.
MAKING_TIMEOUT = 60.0
BLOCK_BYTES, INODE_BYTES = 4096, 256
#: Inodes that ext4 has before there is a file: ten of its own, its root and `job`.
OWN_INODES = 12
#: Share of the blocks, and the most of them, that ext4 keeps for itself (fs/ext4/super.c).
OWN_SHARE, OWN_BLOCKS = 50, 4096
# A file system that lives for minutes and is thrown away wants no journal, no room to grow and no checksums.
_FEATURES = "^has_journal,^resize_inode,^metadata_csum,uninit_bg"
# The tables of inodes need no zeroing in the background: the file is all holes.
_MOUNT_OPTIONS = "noinit_itable"

# linux/loop.h
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_ATTEMPTS = 100
#: Bytes of one piece of the template; there are kilobytes.
_MOST_TEMPLATE = 16 * 1024**2


class LoopVolumes:
    """Makes a loop-mounted file system for each job. For root, on a machine with loop devices and mke2fs."""

    name = "loop"

    def __init__(self, bound: Bound, directory: Path) -> None:
        """`directory`: on whose file system the files are kept."""
        self._bound = bound
        self._store = directory
        # What a fresh file system consists of: where in the file, and the bytes.
        self._template: Sequence[tuple[int, bytes]] = ()
        inodes = (bound.files + OWN_INODES) * INODE_BYTES
        blocks = -(-(bound.bytes + inodes) // BLOCK_BYTES)
        self._size = (blocks + min(blocks // OWN_SHARE + 1, OWN_BLOCKS)) * BLOCK_BYTES

    def open(self) -> str:
        """Make the template, and one volume of it. Raises OSError or SetupError where that is impossible."""
        trial = self._store / f"trial-{uuid.uuid4().hex}"
        self._template = self._make_template(trial)
        self.make(trial).remove()
        return f"a file system for each job, of {self._bound}, through loop devices"

    def make(self, directory: Path) -> MountedVolume:
        """A fresh file system at `directory`. Raises OSError."""
        directory.mkdir(mode=0o700)
        file = self._sparse_file()
        try:
            for offset, content in self._template:
                os.pwrite(file.fileno(), content, offset)
            _mount(file, directory)
            # Open as long as the volume lives: emptied in the end, it gives its room back even if the mount is held.
            return MountedVolume(directory, self._bound, lambda: _discard(file))
        except OSError:
            file.close()
            raise

    def _sparse_file(self) -> IO[bytes]:
        file = tempfile.TemporaryFile(dir=self._store)  # noqa: SIM115 - it lives as long as the volume
        file.truncate(self._size)
        return file

    def _make_template(self, directory: Path) -> Sequence[tuple[int, bytes]]:
        with self._sparse_file() as file:
            self._format(file)
            directory.mkdir()
            _mount(file, directory)
            try:
                (directory / "lost+found").rmdir()
                (directory / JOB).mkdir()
                (directory / JOB).chmod(0o777)
                directory.chmod(0o700)
            finally:
                detach(directory)
                directory.rmdir()
            os.fsync(file.fileno())
            return tuple(_extents(file.fileno(), self._size))

    def _format(self, file: IO[bytes]) -> None:
        program = shutil.which("mke2fs", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
        if program is None:
            raise SetupError("no mke2fs on PATH (Debian: the package e2fsprogs)")
        words = [program, "-q", "-F", "-t", "ext4", "-m", "0", "-b", str(BLOCK_BYTES), "-I", str(INODE_BYTES)]
        words += ["-N", str(self._bound.files + OWN_INODES), "-O", _FEATURES]
        words += ["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", f"/proc/self/fd/{file.fileno()}"]
        try:
            subprocess.run(
                words, pass_fds=[file.fileno()], check=True, capture_output=True, timeout=MAKING_TIMEOUT, text=True
            )
        except subprocess.SubprocessError as error:
            said = str(getattr(error, "stderr", None) or error).strip()
            raise SetupError(f"mke2fs failed: {said}") from error


def _mount(file: IO[bytes], directory: Path) -> None:
    device, number = _attach(file.fileno())
    try:
        mount(f"/dev/loop{number}", directory, "ext4", _MOUNT_OPTIONS)
    finally:
        os.close(device)  # the mount has it open; without one it clears itself


def _attach(file: int) -> tuple[int, int]:
    """A free loop device with `file` in it: open, and its number."""
    config = struct.pack("=II", file, 0)
    config += struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, b"broadway", b"", b"", 0, 0)
    config += bytes(64)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else asked at the same moment and was faster
                    raise
            else:
                return device, number
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device stays free for long enough to be taken")


def _extents(file: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Where in a sparse file there is data, and what."""
    position = 0
    while position < size:
        try:
            begin = os.lseek(file, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # none any more
                return
            raise
        position = os.lseek(file, begin, os.SEEK_HOLE)
        if position - begin > _MOST_TEMPLATE:  # the answer of a file system that knows no holes
            raise SetupError("the work directory's file system keeps no sparse files")
        yield begin, os.pread(file, position - begin, begin)


def _discard(file: IO[bytes]) -> None:
    file.truncate(0)
    file.close()
