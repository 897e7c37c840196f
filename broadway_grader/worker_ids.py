"""The worker ids under which the API may still hold jobs for this grader, remembered on disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from broadway_grader.durable import write_durably

log = logging.getLogger(__name__)

#: How many worker ids are remembered. More pile up only where lives end before they can say goodbye to the last one's.
REMEMBERED_IDS = 100


class WorkerIds:
    """The worker ids that the API may still know as this grader's: a file, one id per line, oldest first.

    An id is in it from its registration, before it can hold a job, until the API is known to have forgotten it. So
    however many lives end by a crash, the one that gets through deregisters all of them. A disk that fails is logged:
    the price is that the jobs of a life that crashes wait for their leases to end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: list[str] = []
        self._lock = threading.Lock()

    def load(self) -> Sequence[str]:
        """The ids that earlier lives left."""
        with self._lock:
            try:
                lines = self._path.read_text("ascii", "replace").splitlines()
            except FileNotFoundError:
                lines = []
            except OSError as error:
                log.error("cannot read %s: %s", self._path, error)  # noqa: TRY400
                lines = []
            # They become part of URLs; what a crash or a stranger made of the file must not.
            self._ids = [line for line in lines if line.isascii() and line.isalnum()][-REMEMBERED_IDS:]
            return tuple(self._ids)

    def add(self, worker_id: str) -> None:
        """Remember an id; durable on return."""
        with self._lock:
            self._ids = [*self._ids, worker_id][-REMEMBERED_IDS:]
            self._write()

    def discard(self, worker_id: str) -> None:
        """Forget an id."""
        with self._lock:
            if worker_id in self._ids:
                self._ids.remove(worker_id)
                self._write()

    def _write(self) -> None:
        try:
            write_durably(self._path, "".join(f"{worker_id}\n" for worker_id in self._ids).encode("ascii"))
        except OSError as error:
            log.error("cannot remember the worker ids in %s: %s", self._path, error)  # noqa: TRY400
