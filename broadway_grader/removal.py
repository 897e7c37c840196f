"""Removing a directory tree that hostile code has written.

Nothing in it is ever opened by a path from outside, no link is followed, and depth costs neither stack nor file
descriptors: a tree thousands of levels deep is taken apart by moving each directory up to the top.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_HANDLE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove the directory `path` and everything below; a missing one is fine. No process may still write to it.

    Raises OSError at the first thing that cannot be removed.
    """
    try:
        with _directory(path.parent) as parent, _writable_directory(path.name, parent) as top:
            _empty(top)
            os.rmdir(path.name, dir_fd=parent)
    except FileNotFoundError:
        pass


def _empty(top: int) -> None:
    """Remove everything in the directory `top`, breadth first, with the directories below moved up into it."""
    moved = 0
    while True:
        directories = _unlink_files(top)
        if not directories:
            return
        for name in directories:
            with _writable_directory(name, top) as directory:
                # Listed anew until empty: some file systems skip entries of a directory that changes meanwhile.
                while below := _unlink_files(directory):
                    for child in below:
                        moved += 1
                        # Moving a directory changes its "..", for which it must be writable itself.
                        with _writable_directory(child, directory):
                            os.rename(child, _free_name(top, moved), src_dir_fd=directory, dst_dir_fd=top)
            os.rmdir(name, dir_fd=top)


def _free_name(top: int, number: int) -> str:
    """A name not yet used in `top`; a hostile tree may have guessed the plain one."""
    name = f"moved-{number}"
    while True:
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            return name
        name += "-"


def _unlink_files(directory: int) -> list[str]:
    """Unlink whatever is no directory; returns the names of the directories."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=directory)
    return directories


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    handle = os.open(path, _OPEN_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _writable_directory(name: str, parent: int) -> Iterator[int]:
    """Open the directory `name` in `parent`, made readable and writable for us first if it was not."""
    handle = os.open(name, _OPEN_HANDLE, dir_fd=parent)
    try:
        if os.geteuid() != 0 and os.fstat(handle).st_mode & 0o700 != 0o700:
            # chmod has no variant for a handle of this kind; the link in /proc leads to the very same directory.
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101 - no path of the tree is involved
        directory = os.open(".", _OPEN_DIRECTORY, dir_fd=handle)
    finally:
        os.close(handle)
    try:
        yield directory
    finally:
        os.close(directory)
