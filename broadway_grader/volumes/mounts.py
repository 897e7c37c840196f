"""Mounting and unmounting, by the system calls: a tenth of what a `mount` process costs, and no text to parse."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

#: No program gains rights by its mode bits, no device node works, no read is a write. Students' programs may be run.
NOSUID, NODEV, NOATIME = 2, 4, 1024  # linux/mount.h
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def mount(source: str, directory: Path, kind: str, options: str) -> None:
    """Mount a file system of that kind for hostile content. Raises OSError."""
    flags = NOSUID | NODEV | NOATIME
    if _libc.mount(source.encode(), os.fsencode(directory), kind.encode(), flags, options.encode()) != 0:
        raise _error(directory)


def detach(directory: Path) -> None:
    """Unmount what is mounted at `directory`. Raises OSError.

    Lazily: it is gone from the tree at once, and for good when the last process that has a file of it open, or a copy
    of the tree, lets go of it. So nobody can hold us up.
    """
    if _libc.umount2(os.fsencode(directory), _MNT_DETACH) != 0:
        raise _error(directory)


def mounted_below(directory: Path) -> list[Path]:
    """Where something is mounted at or below `directory`, in an order in which it can be unmounted."""
    top = os.fsencode(directory.resolve())
    found = []
    with open("/proc/self/mountinfo", "rb") as lines:  # noqa: PTH123 - bytes: a path may be no text
        for line in lines:
            # Spaces, newlines and backslashes in it stand there as octal numbers.
            path = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4])
            if path == top or path.startswith(top + b"/"):
                found.append(Path(os.fsdecode(path)))
    return found[::-1]


def _error(directory: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(directory))
