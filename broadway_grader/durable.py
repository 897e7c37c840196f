"""Files that are whole or not there, whatever dies while they are written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: Ends the name of a file that is still being written; one found later was left by a crash.
UNFINISHED = ".part"


def write_durably(path: Path, content: bytes) -> None:
    """Make `path` hold `content`, mode 0600, and return when that would survive a power cut.

    Readers see the old content or the new. Raises OSError, and leaves the old content then.
    """
    part = path.with_name(path.name + UNFINISHED)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make what was created, renamed or removed in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
