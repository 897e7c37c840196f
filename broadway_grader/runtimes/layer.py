"""Holding a stage to its share of the engine's disk: what it writes to its container's own file system, and volumes.

Quotas would do this better, but the engine has them on few file systems (`--storage-opt size`). So it is watched.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from broadway_grader.domain import Reason
from broadway_grader.ending import Ending
from broadway_grader.runtimes.engine import ENGINE_ERRORS, Engine
from broadway_grader.volumes.port import Bound
from broadway_grader.volumes.usage import overrun

log = logging.getLogger(__name__)

#: Seconds before the first look and between two. Shorter stages cost nothing: what they write goes when they end.
INTERVAL = 0.5
#: The same where only the engine can count, which takes it longer.
ENGINE_INTERVAL = 5.0
#: What a file counts as at least; empty ones take up the disk's list of files.
BYTES_PER_FILE = 4096


async def watch_layer(engine: Engine, container: str, limit: int, ending: Ending) -> None:
    """Order the end of a container once it has written more than `limit` bytes outside of /job. Until cancelled."""
    await asyncio.sleep(INTERVAL)
    directories: list[str] | None = None
    while True:
        try:
            if directories is None:
                directories = await engine.call(_directories, engine.api, container)
            if not directories:
                await asyncio.sleep(ENGINE_INTERVAL - INTERVAL)
            if await engine.call(_exceeds, engine.api, container, directories, limit):
                ending.order(Reason.DISK_LIMIT, f"it wrote more than {limit} bytes, or too many files, outside of /job")
                return
        except (*ENGINE_ERRORS, OSError) as error:  # a container that has just ended, perhaps
            log.debug("cannot tell what container %s has written: %s", container[:12], error)
        await asyncio.sleep(INTERVAL)


def _directories(api: Any, container: str) -> list[str]:
    """Where on this machine the container's own files are, and those of its volumes; none if we cannot get at them."""
    inspected = api.inspect_container(container)
    upper = (inspected["GraphDriver"].get("Data") or {}).get("UpperDir")
    if not upper or not os.access(upper, os.R_OK | os.X_OK):
        return []
    return [upper, *(mount["Source"] for mount in inspected["Mounts"] if mount["Type"] == "volume")]


def _exceeds(api: Any, container: str, directories: list[str], limit: int) -> bool:
    if not directories:
        (listed,) = api.containers(all=True, size=True, filters={"id": container}) or [{}]
        return int(listed.get("SizeRw") or 0) > limit
    return any(_holds_more(directory, limit) for directory in directories)


def _holds_more(directory: str, limit: int) -> bool:
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return overrun(top, Bound(bytes=limit, files=limit // BYTES_PER_FILE)) is not None
    finally:
        os.close(top)
