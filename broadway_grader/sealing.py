"""Sealed results: what a stage that may do so wrote to /job/results.json, and no earlier stage can have put there.

Whatever stands under that name is removed before the stage starts, and the file is read right after the stage has
ended, before any later one begins. Between the two nothing runs but the stage: a runtime leaves no process of the
earlier ones. All the same everything here is written as if one were alive and changed /job at every moment: nothing
is followed, waited for, or read beyond its bound. Who owns the file says nothing, since every stage of a job may be
the same user; that nobody else could write it is what seals it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import os
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from broadway_grader.directories import opened
from broadway_grader.domain import Reason, Stage, StageResult
from broadway_grader.ending import Ending
from broadway_grader.errors import Fault, InvalidResults
from broadway_grader.gradescope import parse_results
from broadway_grader.removal import remove_tree, unlink
from broadway_grader.runtimes.port import OnOutput, Place, Runtime, nobody

log = logging.getLogger(__name__)

RESULTS = "results.json"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Not following a link, and not waiting for the other end of a fifo.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK = 65_536
#: How often a name is freed that somebody takes again.
_TRIES = 5

# What no stage can bring about: the disk's or the grader's own trouble.
_OUR_FAULTS = (errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)


async def run_sealed(
    runtime: Runtime,
    stage: Stage,
    place: Place,
    ending: Ending | None = None,
    on_output: OnOutput = nobody,
    *,
    following: Stage | None = None,
    max_bytes: int,
    now: Callable[[], datetime],
) -> StageResult:
    """Run a stage that declares results; they, or what is wrong with them, are in its result.

    A stage that succeeds and leaves no valid results has failed. One that failed keeps its reason, and such results
    as it wrote.
    """
    clearing = asyncio.create_task(asyncio.to_thread(clear, place.directory))
    try:
        await asyncio.shield(clearing)
    except asyncio.CancelledError:
        await asyncio.wait({clearing})  # two removals of one tree at once would stumble over each other
        raise
    except OSError as error:
        log.warning("job %s stage %d cannot be sealed: %s", place.job_id, place.stage, error)
        return StageResult(
            started_at=now(),
            finished_at=now(),
            runtime=runtime.name,
            reason=Reason.RUNTIME_ERROR if error.errno in _OUR_FAULTS else Reason.STAGE_FAILED,
            message=f"it was not run: what stood at /job/{RESULTS} before it cannot be removed ({error.strerror})",
            image=stage.image,
        )
    result = await runtime.run_stage(stage, place, ending, on_output, following=following)
    if result.reason in (Reason.IMAGE_UNAVAILABLE, Reason.RUNTIME_ERROR):
        return result  # it did not run, or will again
    try:
        results = await asyncio.to_thread(take, place.directory, max_bytes)
    except InvalidResults as error:
        faults = [{"path": fault.path, "message": fault.message} for fault in error.faults]
        result = dataclasses.replace(result, results_errors=faults)
        if result.reason is not None:
            return result
        return dataclasses.replace(result, reason=Reason.STAGE_FAILED, message=f"no valid /job/{RESULTS}: {error}")
    return dataclasses.replace(result, results=results)


def clear(job: Path) -> None:
    """Remove whatever stands at /job/results.json. Raises OSError if that is impossible."""
    with opened(os.open(job, _DIRECTORY)) as directory:
        for _ in range(_TRIES):
            try:
                unlink(RESULTS, directory)
            except FileNotFoundError:
                return
            except IsADirectoryError:
                remove_tree(job / RESULTS)
    raise OSError(errno.ENOTEMPTY, "it comes back as often as it is removed")


def take(job: Path, max_bytes: int) -> dict[str, Any]:
    """The results in /job/results.json, normalised. Raises InvalidResults, whatever stands there."""
    try:
        with opened(os.open(job, _DIRECTORY)) as directory, opened(os.open(RESULTS, _FILE, dir_fd=directory)) as file:
            content = _read(file, max_bytes)
    except OSError as error:
        what = {
            errno.ENOENT: f"there is no /job/{RESULTS}",
            errno.ELOOP: "it is a symbolic link",
            errno.ENXIO: "it is no regular file",  # a socket
        }.get(error.errno or 0, f"it cannot be read: {error.strerror}")
        raise InvalidResults([Fault(path="$", message=what)]) from None
    return parse_results(content)


def _read(file: int, max_bytes: int) -> bytes:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidResults([Fault(path="$", message="it is no regular file")])
    if status.st_nlink != 1:
        # Another name, by which it could have been written before it stood here; or it was removed meanwhile.
        raise InvalidResults([Fault(path="$", message=f"it has {status.st_nlink} names (hard links), not one")])
    # Also while reading: it may grow, and a sparse one costs its writer nothing.
    content = bytearray()
    while len(content) <= max_bytes and status.st_size <= max_bytes:
        chunk = os.read(file, min(_CHUNK, max_bytes + 1 - len(content)))
        if not chunk:
            return bytes(content)
        content += chunk
    raise InvalidResults([Fault(path="$", message=f"it is larger than {max_bytes} bytes")])
