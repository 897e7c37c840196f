"""Stages for tests, and waiting for what they do."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broadway_grader.domain import Stage

IMAGE = "broadway-busybox:latest"


def sh(script: str, **options: Any) -> Stage:
    """A stage that runs a POSIX shell script."""
    return Stage(image=IMAGE, entry_point=["sh", "-c", script], **options)


def at(place: Any, stage: int) -> Any:
    """The same place for another stage."""
    return dataclasses.replace(place, stage=stage)


async def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Poll until the condition holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


def processes(marker: str) -> list[str]:
    """The command lines on this machine that contain the marker, our own process left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended since
        if marker in words and path.parent.name != str(os.getpid()):
            found.append(words)
    return found


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
