"""Finished results on disk, from the end of their job to the API's answer, so that no crash loses one."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import stat
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from broadway_grader.clock import utc_now
from broadway_grader.domain import JobResult
from broadway_grader.durable import sync_directory, write_durably
from broadway_grader.removal import remove_tree
from broadway_grader.wire import parse_result

log = logging.getLogger(__name__)

#: How many refused results (and files that are none) are kept for people to look at; older ones are removed.
KEPT_REFUSED = 100

_REFUSED = "refused"
_LONGEST_NAME = 100  # of a file set aside; a time is put in front of it, and names end at 255 bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpooledResult:
    """A result with the worker id that claimed its job, the only one from which the API takes it."""

    worker_id: str
    result: JobResult


class Spool:
    """A directory of results that the API has not answered yet.

    spool/                          0700
      <job>-<attempt>.json          0600, one result with its claim: {"worker_id", "job_id", "result"}
      refused/<time>-<name>         the newest that the API refused, and what was found here and is no result

    Every method does I/O and may be called from any thread. One grader at a time: the work directory's lock sees to it.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        self.path = path
        self.refused = path / _REFUSED
        self._now = now
        self._setting_aside = threading.Lock()

    def open(self) -> None:
        """Make the directories. Raises OSError."""
        for directory in (self.path, self.refused):
            directory.mkdir(mode=0o700, exist_ok=True)
            directory.chmod(0o700)

    def put(self, spooled: SpooledResult) -> None:
        """Keep a result, in place of an earlier one of the same claim; durable on return. Raises OSError."""
        result = spooled.result
        content = {"worker_id": spooled.worker_id, "job_id": result.job_id, "result": result.to_wire()}
        # Text that is no Unicode (a lone surrogate) is written as an escape, as JSON has it by default.
        write_durably(self._path(result), json.dumps(content, separators=(",", ":")).encode("ascii"))

    def remove(self, result: JobResult) -> None:
        """Forget a result that the API has accepted. One that is not there is fine; one that stays is logged.

        Not made durable: a result that comes back after a power cut is posted again, which is harmless.
        """
        try:
            self._path(result).unlink(missing_ok=True)
        except OSError as error:
            log.error("cannot remove the accepted result of job %s: %s", result.job_id, error)  # noqa: TRY400

    def refuse(self, result: JobResult) -> None:
        """Set a result aside that the API will not take; one that is not there is fine."""
        path = self._path(result)
        if path.exists():
            self._set_aside(path)

    def void(self, worker_id: str) -> None:
        """Set aside the results of a worker id that the API has just been made to forget."""
        for spooled in self.load():
            if spooled.worker_id == worker_id:
                log.warning("the result of job %s came too late, setting it aside", spooled.result.job_id)
                self.refuse(spooled.result)

    def load(self) -> list[SpooledResult]:
        """The results that are here, by name. What is none (a write cut short, say) is set aside and logged."""
        try:
            paths = sorted(path for path in self.path.iterdir() if path != self.refused)
        except OSError as error:
            log.error("cannot look into %s: %s", self.path, error)  # noqa: TRY400
            return []
        found = []
        for path in paths:
            try:
                spooled = _parse(path)
            except (OSError, ValueError, RecursionError) as error:
                log.error("%s is no result of ours, setting it aside: %s", path, error)  # noqa: TRY400
                self._set_aside(path)
            else:
                found.append(spooled)
        return found

    def _path(self, result: JobResult) -> Path:
        return self.path / f"{result.job_id}-{result.attempt}.json"

    def _set_aside(self, path: Path) -> None:
        # A time in front of the name tells two refusals of one job apart, and sorts.
        name = f"{self._now():%Y%m%dT%H%M%S.%fZ}-{path.name[:_LONGEST_NAME]}"
        with self._setting_aside:
            try:
                path.rename(self.refused / name)
                for old in sorted(self.refused.iterdir())[:-KEPT_REFUSED]:
                    if old.is_dir() and not old.is_symlink():
                        remove_tree(old)
                    else:
                        old.unlink()
                sync_directory(self.refused)
            except OSError as error:
                log.error("cannot set %s aside: %s", path, error)  # noqa: TRY400


def _parse(path: Path) -> SpooledResult:
    """Read one file. Raises OSError; ValueError if it is not what `put` has written there."""
    # Neither following a link nor waiting for a writer: what lies here need not be ours.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no regular file")
        content: Any = json.loads(file.read())
    worker_id = content.get("worker_id") if isinstance(content, dict) else None
    if not isinstance(worker_id, str) or not (worker_id.isascii() and worker_id.isalnum()):
        raise ValueError("it names no worker")
    result = parse_result(content.get("job_id"), content.get("result"))
    if path.name != f"{result.job_id}-{result.attempt}.json":
        raise ValueError("it has the name of another one")
    return SpooledResult(worker_id=worker_id, result=result)
