"""Counting what a hostile tree takes, while it is changed, with bounded effort."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat

from broadway_grader.directories import open_directory
from broadway_grader.volumes.nameless import nameless
from broadway_grader.volumes.port import Bound

#: Levels that are counted, each of which costs an open file; nobody needs as many.
DEEPEST = 200
_BLOCK = 512  # st_blocks, whatever the file system


class _Overrun(Exception):
    """The count need not go on."""


@dataclasses.dataclass(kw_only=True)
class _Count:
    """What has been found so far. A name is a file: so hard links cannot make the effort grow without the count."""

    bound: Bound
    bytes: int = 0
    files: int = 0
    # Those that may be met again: by another name, or, without any, by another process that has them open.
    linked: set[tuple[int, int]] = dataclasses.field(default_factory=set)

    def add(self, found: os.stat_result) -> None:
        self.files += 1
        if not stat.S_ISDIR(found.st_mode) and found.st_nlink != 1:
            if (found.st_dev, found.st_ino) in self.linked:
                return self.check()
            self.linked.add((found.st_dev, found.st_ino))
        self.bytes += found.st_blocks * _BLOCK  # what is taken of the disk: the holes of a sparse file are not
        return self.check()

    def check(self) -> None:
        if self.bytes > self.bound.bytes:
            raise _Overrun(self.bound.too_large)
        if self.files > self.bound.files:
            raise _Overrun(self.bound.too_many)


def overrun(top: int, bound: Bound) -> str | None:
    """The verdict on what is below the open directory `top`, or None if it is within its bound.

    What goes away while it is counted is left out. Raises OSError where the tree cannot be counted.
    """
    count = _Count(bound=bound)
    # Each level that is being looked at: the directory, open, and those in it whose turn is still to come.
    levels: list[tuple[int, list[str]]] = []

    def enter(directory: int) -> None:
        children: list[str] = []
        levels.append((directory, children))
        if len(levels) > DEEPEST:
            raise _Overrun(f"/job is nested more than {DEEPEST} levels deep")
        children += _list(directory, count)

    try:
        enter(os.dup(top))
        while levels:
            directory, children = levels[-1]
            if not children:
                os.close(levels.pop()[0])
                continue
            # Gone, or no directory any more.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                enter(open_directory(children.pop(), directory, restore=True))
        for found in nameless(top):
            count.add(found)
    except _Overrun as verdict:
        return str(verdict)
    finally:
        for directory, _ in levels:
            os.close(directory)
    return None


def _list(directory: int, count: _Count) -> list[str]:
    """Count what is in a directory; returns the names of the directories."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            count.add(found)
            if stat.S_ISDIR(found.st_mode):
                directories.append(entry.name)
    return directories
