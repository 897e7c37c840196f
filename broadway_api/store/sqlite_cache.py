"""What dispatch needs of the file again and again, kept at hand for as long as nothing else changes the file.

The file is this process's alone, and its writes come one after another. So what dispatch read or wrote last is what
stands there, unless other work has changed something since, or what dispatch wrote was undone: then all is read again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import replace
from datetime import datetime

from broadway_api.domain import Job, JobState, JobType, Worker
from broadway_api.store.places import Lane
from broadway_api.store.sqlite_places import frontiers
from broadway_api.store.sqlite_queries import read_jobs, read_worker
from broadway_api.store.sqlite_ranks import queued_requirements
from broadway_api.store.sqlite_transaction import FileConnection

#: The jobs of one type in a run.
Phase = tuple[str, JobType]

#: Workers that are kept at hand: those of a large fleet, in some ten megabytes.
CAPACITY = 20_000


class DispatchCache:
    """Workers, the jobs that they hold, what queued jobs require, frontiers. Work uses it between `begin` and `end`.

    Two things are not kept as they are in the file, since dispatch does not ask for them: when the leases of jobs end,
    and how many jobs a worker has processed.
    """

    def __init__(self) -> None:
        self._stamp: tuple[int, int, int] | None = None
        self._workers: dict[str, Worker] = {}
        self._held: dict[str, dict[str, Job]] = {}
        self._running: Counter[Phase] = Counter()  # of those jobs
        self._requirements: set[str] | None = None
        self._frontiers: dict[Lane, float] | None = None

    def begin(self, db: FileConnection) -> None:
        """Forget everything that may not be so any more."""
        if self._stamp != _stamp_of(db) or max(len(self._workers), len(self._held)) > CAPACITY:
            self._workers.clear()
            self._held.clear()
            self._running.clear()
            self._requirements = None
            self._frontiers = None
        self._stamp = None  # work that fails before its `end` leaves everything in doubt

    def end(self, db: FileConnection) -> None:
        """Note that whatever was changed since `begin` was changed here as well."""
        self._stamp = _stamp_of(db)

    def worker(self, db: sqlite3.Connection, worker_id: str) -> Worker:
        """Raises UnknownWorker."""
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = read_worker(db, worker_id)
        return worker

    def keep_asked(self, worker: Worker, now: datetime) -> None:
        """Note that it was noted that a worker asked for jobs."""
        self._workers[worker.id] = replace(worker, last_seen=max(worker.last_seen, now), asked_at=now)

    def keep_blameless(self, worker_id: str) -> None:
        """Note that nothing speaks against a worker any more, if it is known."""
        worker = self._workers.get(worker_id)
        if worker is not None and (worker.strikes or worker.quarantined_until):
            self._workers[worker_id] = replace(worker, strikes=0, quarantined_until=None)

    def held(self, db: sqlite3.Connection, worker_id: str) -> Mapping[str, Job]:
        """The jobs that a worker holds, by id."""
        held = self._held.get(worker_id)
        if held is None:
            self._held[worker_id] = held = {}
            for job in read_jobs(db, "WHERE worker_id = ? AND state = 'running'", (worker_id,)):
                self.keep_running(job)
        return held

    def keep_running(self, job: Job) -> None:
        """Note that a worker holds the job, of whom is known what else it holds."""
        held = self._held[job.worker_id or ""]
        if job.id not in held:
            self._running[job.run_id, job.type] += 1
        held[job.id] = job

    def keep_end(self, job: Job, after: Job) -> None:
        """Note that nobody holds the job any more, and that it is in the queue again, if it is."""
        del self._held[job.worker_id or ""][job.id]
        self._running[job.run_id, job.type] -= 1
        if after.state is JobState.QUEUED and self._requirements is not None:
            self._requirements.add(job.requirement)

    def is_running(self, phase: Phase) -> bool:
        """Whether a job of a phase is known to run. Others may."""
        return self._running[phase] > 0

    def requirements(self, db: sqlite3.Connection) -> Set[str]:
        """What queued jobs require, and perhaps what those required that were queued a moment ago."""
        if self._requirements is None:
            self._requirements = set(queued_requirements(db))
        return self._requirements

    def frontiers(self, db: sqlite3.Connection) -> dict[Lane, float]:
        """How far each lane of the queue was handed out, at least. Whoever moves a frontier notes it here."""
        if self._frontiers is None:
            self._frontiers = frontiers(db)
        return self._frontiers


def _stamp_of(db: FileConnection) -> tuple[int, int, int]:
    return db.version, db.total_changes, db.undone
