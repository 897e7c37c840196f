"""Removing a directory tree that hostile code has written, whatever is in it.

Nothing in it is ever opened by a path from outside, no link is followed, and depth costs neither stack nor file
descriptors: a tree thousands of levels deep is taken apart by moving each directory up to the top.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

from broadway_grader.directories import open_directory, opened

#: How often a directory is listed anew when what was listed was not there, or something else, when its turn came.
PATIENCE = 1000

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h
_FS_IMMUTABLE_FL, _FS_APPEND_FL = 0x10, 0x20
# What calls say of an entry that has become something else since it was listed.
_CHANGED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY, errno.EEXIST}


def remove_tree(path: Path) -> None:
    """Remove the directory `path` and everything below; a missing one is fine.

    It may be changed while it is removed: that costs time and no harm, and in the end an OSError if it never ceases.
    Raises OSError as well at the first thing that cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError), opened(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)) as parent:
        with opened(open_directory(path.name, parent)) as top:
            _empty(top)
        _forced(lambda: os.rmdir(path.name, dir_fd=parent), (path.name, parent))


def unlink(name: str, directory: int) -> None:
    """Unlink `name`, whatever it is but a directory, also if it was made immutable. Raises OSError."""
    _forced(lambda: os.unlink(name, dir_fd=directory), (name, directory), (".", directory))


def _empty(top: int) -> None:
    """Remove everything in the directory `top`, breadth first, with the directories below moved up into it."""
    moved = changed = 0
    while True:
        directories, files = _unlink_files(top)
        if not directories and not files:
            return
        for name in directories:
            try:
                moved += _take_apart(name, top, moved)
            except OSError as error:
                changed += 1
                if error.errno not in _CHANGED or changed > PATIENCE:
                    raise


def _take_apart(name: str, top: int, moved: int) -> int:
    """Remove the directory `name` in `top`, with the directories in it moved up; returns how many those were."""
    count = 0
    with opened(open_directory(name, top)) as directory:
        # Listed anew until empty: some file systems skip entries of a directory that changes meanwhile.
        while True:
            below, files = _unlink_files(directory)
            if not below and not files:
                break
            for child in below:
                count += 1
                # Moving a directory changes its "..", for which it must be writable itself.
                with opened(open_directory(child, directory)):
                    _move(child, directory, _free_name(top, moved + count), top)
    _forced(lambda: os.rmdir(name, dir_fd=top), (name, top), (".", top))
    return count


def _move(name: str, source: int, new_name: str, target: int) -> None:
    _forced(
        lambda: os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target),
        *((name, source), (".", source), (".", target)),
    )


def _free_name(top: int, number: int) -> str:
    """A name not yet used in `top`; a hostile tree may have guessed the plain one."""
    name = f"moved-{number}"
    while True:
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            return name
        name += "-"


def _unlink_files(directory: int) -> tuple[list[str], int]:
    """Unlink whatever is no directory; returns the names of the directories, and how many others there were."""
    directories, files = [], 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
                continue
            files += 1
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # the next look will tell
                unlink(entry.name, directory)
    return directories, files


def _forced(call: Callable[[], None], *locked: tuple[str, int]) -> None:
    """Call, and if that is forbidden once more, with what may forbid to change these entries lifted."""
    try:
        call()
    except PermissionError:
        for name, parent in locked:
            _unlock(name, parent)
        call()


def _unlock(name: str, parent: int) -> None:
    """Clear the flags by which a privileged stage can make a file or directory immutable."""
    # Of other kinds of files there is nothing to be opened, and nothing to be locked.
    try:
        with opened(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)) as file:
            flags = struct.unpack("=I", fcntl.ioctl(file, _FS_IOC_GETFLAGS, bytes(4)))[0]
            if flags & (_FS_IMMUTABLE_FL | _FS_APPEND_FL):
                flags &= ~(_FS_IMMUTABLE_FL | _FS_APPEND_FL)
                fcntl.ioctl(file, _FS_IOC_SETFLAGS, struct.pack("=I", flags))
    except OSError:
        return  # the caller's second try says what is wrong
