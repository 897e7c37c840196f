"""Holding a stage to its job's share of the disk: ended for exceeding it, or blamed when it failed of it."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import os
from collections.abc import Awaitable, Callable

from broadway_grader.domain import Reason, StageResult
from broadway_grader.ending import Ending
from broadway_grader.workspace import Workspace

log = logging.getLogger(__name__)

#: How a stage ends that may have found no room in /job. A runtime that could not even begin says why.
_MAY_BE_THE_DISKS = (None, Reason.STAGE_FAILED, Reason.RUNTIME_ERROR)
_NO_SPACE = os.strerror(errno.ENOSPC).lower()


async def run_bounded(run: Callable[[Ending], Awaitable[StageResult]], workspace: Workspace) -> StageResult:
    """Run a stage in `workspace`: `run` runs it, and ends it when it is ordered to."""
    ending = Ending()
    watch = asyncio.create_task(_watch(workspace, ending), name=f"watch over {workspace.path}")
    try:
        result = await run(ending)
    finally:
        watch.cancel()
        await asyncio.wait({watch})
    if result.reason not in _MAY_BE_THE_DISKS:
        return result
    failed = result.reason is Reason.STAGE_FAILED or _NO_SPACE in (result.message or "").lower()
    if blame := await workspace.overrun(failed=failed):
        return dataclasses.replace(result, reason=Reason.DISK_LIMIT, message=blame)
    return result


async def _watch(workspace: Workspace, ending: Ending) -> None:
    try:
        verdict = await workspace.overflow()
    except Exception as error:
        log.exception("the watch over %s failed", workspace.path)
        ending.order(Reason.RUNTIME_ERROR, f"the watch over /job failed: {error}")
    else:
        log.warning("ending the stage in %s: %s", workspace.path, verdict)
        ending.order(Reason.DISK_LIMIT, verdict)
