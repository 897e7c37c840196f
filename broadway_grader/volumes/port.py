"""What a way to bound /job is: the one thing that knows where a job's files are kept and when they are too many."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """How much a job may keep in /job."""

    bytes: int
    files: int  # of every kind, directories too

    def __str__(self) -> str:
        return f"{self.bytes / 1024**2:g} MiB and {self.files} files"

    @property
    def too_large(self) -> str:
        """The verdict on a job that wanted more bytes, for people."""
        return f"/job is full: a job may keep {self.bytes / 1024**2:g} MiB in it"

    @property
    def too_many(self) -> str:
        """The verdict on a job that wanted more files, for people."""
        return f"/job is full: a job may keep {self.files} files in it"


class Volume(Protocol):
    """One job's /job, from its making to its removal.

    Its methods but `overflow` block, and may be called in any thread. What stages leave in it is
    hostile, and they may change it at any time while they run.
    """

    @property
    def path(self) -> Path:
        """The directory to mount at /job: absolute, and open to every user that can reach it."""

    @property
    def descriptor(self) -> int:
        """The same directory, open until it is removed: whatever is done with its name, this one is meant."""

    async def overflow(self) -> str:
        """Return, with the verdict, when the stage that runs must be stopped; never, where the kernel keeps the bound.

        Cancelled when the stage has ended.
        """

    def overrun(self, *, failed: bool) -> str | None:
        """The verdict on a stage that has just ended, and failed or not, if its use of /job is to blame."""

    def remove(self) -> None:
        """Remove it with everything that is in it; once. No stage may be running. Raises OSError."""


class Volumes(Protocol):
    """Makes volumes in one of the ways there are. Its methods block, and may be called in any thread."""

    @property
    def name(self) -> str:
        """The name that configuration knows it by."""

    def open(self) -> str:
        """Try it out; returns one line that describes it. Raises OSError, or SetupError, where it does not work."""

    def make(self, directory: Path) -> Volume:
        """A fresh volume in `directory`, which does not exist yet and can be reached by us alone. Raises OSError.

        What was made of it when it fails is left for `removal.remove_tree`, as it is when this process dies.
        """
