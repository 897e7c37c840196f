"""Holding a stage to its job's share of the disk: stopped for exceeding it, or blamed when it failed of it."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import os
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from broadway_grader.domain import Reason, Stage, StageResult
from broadway_grader.workspace import Workspace

log = logging.getLogger(__name__)

#: How a stage ends that may have found no room in /job. A runtime that could not even begin says why.
_MAY_BE_THE_DISKS = (None, Reason.STAGE_FAILED, Reason.RUNTIME_ERROR)
_NO_SPACE = os.strerror(errno.ENOSPC).lower()


async def run_bounded(
    work: Coroutine[Any, Any, StageResult],
    stage: Stage,
    workspace: Workspace,
    *,
    runtime: str,
    now: Callable[[], datetime],
) -> StageResult:
    """Run the stage, which is to be done by `work`, in `workspace`. Being cancelled cancels `work`."""
    begun = now()
    running = asyncio.create_task(work, name=f"stage in {workspace.path}")
    overflow = asyncio.create_task(workspace.overflow(), name=f"watch over {workspace.path}")
    try:
        await asyncio.wait({running, overflow}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            verdict = overflow.result()  # raises what has gone wrong with the watch
            log.warning("stopping the stage in %s: %s", workspace.path, verdict)
            return StageResult(
                started_at=begun,
                finished_at=now(),
                runtime=runtime,
                reason=Reason.DISK_LIMIT,
                message=verdict,
                image=stage.image,
            )
        result = running.result()
    finally:
        await _end(overflow, running)
    if result.reason not in _MAY_BE_THE_DISKS:
        return result
    failed = result.reason is Reason.STAGE_FAILED or _NO_SPACE in (result.message or "").lower()
    if blame := await workspace.overrun(failed=failed):
        return dataclasses.replace(result, reason=Reason.DISK_LIMIT, message=blame)
    return result


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
