"""How the SQLite store hands jobs out, each step within its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache as cached

from broadway_api import capabilities, lifecycle
from broadway_api.domain import Claim, Job, Worker
from broadway_api.errors import UnknownWorker
from broadway_api.store import records
from broadway_api.store.records import to_millis
from broadway_api.store.sqlite_cache import DispatchCache
from broadway_api.store.sqlite_places import handed_out
from broadway_api.store.sqlite_schema import QUEUED_COLUMNS, taken_job_from_row
from broadway_api.store.turns import Turns

_URGENT = ("jobs_by_urgency", "priority DESC, rank, id")
_FAIR = ("jobs_by_fairness", "rank, id")

_AGAIN = "SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY rank, id LIMIT ?"

_TAKE = (
    "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker_id = ?, lease_expires_at = ?, started_at = ?"
    " WHERE id = ?"
)

_FOR_OTHERS = "ifnull(avoid_worker_id = ?1 AND avoid_until > ?2, false)"


def note_asking(db: sqlite3.Connection, cache: DispatchCache, worker_id: str, now: datetime) -> None:
    """Note that the worker was heard of, and asked, if that matters. Raises UnknownWorker."""
    worker = cache.worker(db, worker_id)
    if lifecycle.is_to_be_noted(worker, now):
        note = "UPDATE workers SET last_seen = max(last_seen, ?1), asked_at = ?1 WHERE id = ?2"
        db.execute(note, (to_millis(now), worker_id))
        cache.keep_asked(worker, now)


def renew_leases(
    db: sqlite3.Connection, worker_id: str, running: Sequence[Claim] | None, now: datetime, lease: timedelta
) -> list[str]:
    """Renew those of a worker, see `Store.heartbeat`; the ids of what it lost. Raises UnknownWorker."""
    seen = "UPDATE workers SET last_seen = max(last_seen, ?) WHERE id = ?"  # by a clock that may have been set back
    if not db.execute(seen, (to_millis(now), worker_id)).rowcount:
        raise UnknownWorker(worker_id)
    renew = "UPDATE jobs SET lease_expires_at = ? WHERE worker_id = ? AND state = 'running'"
    until = to_millis(now + lease)
    if running is None:
        db.execute(renew, (until, worker_id))
        return []
    return [
        claim.job_id
        for claim in running
        if not db.execute(
            renew + " AND id = ? AND attempt = ifnull(?, attempt)",
            (until, worker_id, claim.job_id, claim.attempt),
        ).rowcount
    ]


def hand_out(
    db: sqlite3.Connection,
    cache: DispatchCache,
    turns: Turns,
    worker_id: str,
    n: int,
    now: datetime,
    lease: timedelta,
    *,
    holding: Collection[str],
) -> list[Job]:
    """Hand up to `n` jobs to the worker, see `Store.claim_jobs`. Raises UnknownWorker."""
    worker = cache.worker(db, worker_id)
    held = cache.held(db, worker_id)
    unknown = held.keys() - holding
    again = _hold_longer(db, [held[job_id] for job_id in unknown], n, now + lease) if unknown else []
    wanted = lifecycle.new_jobs_allowed(worker, n - len(again), len(again) + len(holding), now)
    new = _take(db, cache, turns, worker, wanted, now, lease) if wanted > 0 else []
    return again + new


def _take(
    db: sqlite3.Connection,
    cache: DispatchCache,
    turns: Turns,
    worker: Worker,
    wanted: int,
    now: datetime,
    lease: timedelta,
) -> list[Job]:
    """So many queued jobs, or as many as there are, now the worker's."""
    served = [text for text in cache.requirements(db) if capabilities.fits(worker.labels, text)]
    asked = served[0] if len(served) == 1 else records.to_text(served)
    at, until = to_millis(now), to_millis(now + lease)
    taken: list[tuple[Job, float]] = []
    alone = False
    while served and len(taken) < wanted:
        is_fair, number = turns.next(worker.labels, wanted - len(taken))
        statement = first_in(_FAIR if is_fair else _URGENT, several=len(served) > 1, for_others=alone)
        rows = db.execute(statement, (worker.id, at, asked, number))
        first = [(taken_job_from_row(row, worker.id, now, now + lease), float(row[-1])) for row in rows]
        if first:
            db.executemany(_TAKE, [(worker.id, until, at, job.id) for job, _ in first])
            turns.took(worker.labels, len(first))
            taken += first
        elif alone or _has_peers(db, worker.id, now - lease):
            break
        else:
            alone = True
    handed_out(db, cache.frontiers(db), taken)
    jobs = [job for job, _ in taken]
    for job in jobs:
        cache.keep_running(job)
    return jobs


@cached
def first_in(order: tuple[str, str], *, several: bool, for_others: bool) -> str:
    """The statement that finds the first jobs of the queue in an order, up to so many (parameter 4).

    It reads the first entries of an index that have what the worker meets (3). If it meets several requirements (a JSON
    list), it finds one job: of each requirement the first entry is read. 1 is the worker, 2 the time.
    """
    index, by = order
    which = "" if for_others else f"AND NOT {_FOR_OTHERS}"
    if not several:
        return (
            f"SELECT {QUEUED_COLUMNS}, rank FROM jobs INDEXED BY {index} WHERE state = 'queued' AND requirement = ?3"
            f" {which} ORDER BY {by} LIMIT ?4"
        )
    return (
        f"SELECT {QUEUED_COLUMNS}, rank FROM jobs WHERE id IN ("
        f"SELECT (SELECT id FROM jobs INDEXED BY {index} WHERE state = 'queued' AND requirement = served.value {which}"
        f" ORDER BY {by} LIMIT 1) FROM json_each(?3) AS served"
        f") ORDER BY {by} LIMIT min(1, ?4)"
    )


def _hold_longer(db: sqlite3.Connection, unknown: Sequence[Job], n: int, until: datetime) -> list[Job]:
    """Up to `n` of the jobs that the worker was given and does not know that it holds: the answer got lost."""
    jobs = {job.id: replace(job, lease_expires_at=until) for job in unknown}
    again = [jobs[row["id"]] for row in db.execute(_AGAIN, (records.to_text([*jobs]), n))]
    db.executemany("UPDATE jobs SET lease_expires_at = ? WHERE id = ?", [(to_millis(until), job.id) for job in again])
    return again


def _has_peers(db: sqlite3.Connection, worker_id: str, since: datetime) -> bool:
    found = db.execute("SELECT 1 FROM workers WHERE id <> ? AND last_seen > ? LIMIT 1", (worker_id, to_millis(since)))
    return found.fetchone() is not None
