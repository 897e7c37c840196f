"""Opening directories of a hostile tree by their parents, never by a path, never through a link."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_HANDLE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(name: str, parent: int, *, restore: bool = False) -> int:
    """Open the directory `name` in `parent`; one that is closed to us, its owner, is opened first.

    `restore`: give it back the mode that it had. Raises OSError: NotADirectoryError for whatever is none, a link too.
    """
    handle = os.open(name, _OPEN_HANDLE, dir_fd=parent)
    try:
        # chmod has no variant for a handle of this kind; the link in /proc leads to the very same directory.
        link, mode = f"/proc/self/fd/{handle}", os.fstat(handle).st_mode & 0o7777
        closed = os.geteuid() != 0 and mode & 0o700 != 0o700
        if closed:
            os.chmod(link, mode | 0o700)  # noqa: PTH101 - no path of the tree is involved
        try:
            return os.open(".", _OPEN_DIRECTORY, dir_fd=handle)
        finally:
            if closed and restore:
                os.chmod(link, mode)  # noqa: PTH101
    finally:
        os.close(handle)


@contextlib.contextmanager
def opened(descriptor: int) -> Iterator[int]:
    """Close it in the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)
