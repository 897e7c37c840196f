"""How the SQLite store hands jobs out, each step within its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache

from broadway_api import capabilities, lifecycle
from broadway_api.domain import Job, Worker
from broadway_api.store import records
from broadway_api.store.records import to_millis
from broadway_api.store.sqlite_places import handed_out
from broadway_api.store.sqlite_queries import read_ranked_job
from broadway_api.store.sqlite_ranks import queued_requirements
from broadway_api.store.turns import Turns

_URGENT = ("jobs_by_urgency", "priority DESC, rank, id")
_FAIR = ("jobs_by_fairness", "rank, id")

_HELD = "SELECT id FROM jobs INDEXED BY jobs_held WHERE worker_id = ? AND state = 'running'"

_AGAIN = "SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY rank, id LIMIT ?"

_TAKE = (
    "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker_id = ?, lease_expires_at = ?, started_at = ?"
    " WHERE id = ?"
)

_FOR_OTHERS = "ifnull(avoid_worker_id = ?1 AND avoid_until > ?2, false)"


def hand_out(
    db: sqlite3.Connection,
    turns: Turns,
    worker: Worker,
    n: int,
    now: datetime,
    lease: timedelta,
    *,
    holding: Collection[str],
) -> list[Job]:
    """Hand up to `n` jobs to the worker, see `Store.claim_jobs`."""
    again = _hold_longer(db, worker.id, n, now + lease, known=holding)
    wanted = lifecycle.new_jobs_allowed(worker, n - len(again), len(again) + len(holding), now)
    new = _take(db, turns, worker, wanted, now, lease) if wanted else []
    jobs = [read_ranked_job(db, job_id) for job_id in (*again, *new)]
    handed_out(db, jobs[len(again) :])
    return [job for job, _ in jobs]


def _take(
    db: sqlite3.Connection, turns: Turns, worker: Worker, wanted: int, now: datetime, lease: timedelta
) -> list[str]:
    """The ids of so many queued jobs, or as many as there are, now the worker's."""
    served = [text for text in queued_requirements(db) if capabilities.fits(worker.labels, text)]
    values = (worker.id, to_millis(now), records.to_text(served))
    given = (worker.id, to_millis(now + lease), to_millis(now))
    taken: list[str] = []
    alone = False
    while served and len(taken) < wanted:
        order = _FAIR if turns.is_fair(worker.labels) else _URGENT
        first = db.execute(first_in(order, for_others=alone), values).fetchone()
        if first is not None:
            db.execute(_TAKE, (*given, first[0]))
            turns.took(worker.labels)
            taken.append(first[0])
        elif alone or _has_peers(db, worker.id, now - lease):
            break
        else:
            alone = True
    return taken


@cache
def first_in(order: tuple[str, str], *, for_others: bool) -> str:
    """The statement that finds the first job of the queue in an order.

    Of each requirement that the worker meets (parameter 3, a JSON list) it reads the first entry of an index. 1 is the
    worker, 2 the time.
    """
    index, by = order
    which = "" if for_others else f"AND NOT {_FOR_OTHERS}"
    return (
        "SELECT id FROM jobs WHERE id IN ("
        f"SELECT (SELECT id FROM jobs INDEXED BY {index} WHERE state = 'queued' AND requirement = served.value {which}"
        f" ORDER BY {by} LIMIT 1) FROM json_each(?3) AS served"
        f") ORDER BY {by} LIMIT 1"
    )


def _hold_longer(
    db: sqlite3.Connection, worker_id: str, n: int, until: datetime, *, known: Collection[str]
) -> list[str]:
    """The ids of up to `n` jobs that the worker was given and does not know that it holds: the answer got lost."""
    unknown = {row[0] for row in db.execute(_HELD, (worker_id,))}.difference(known)
    if not unknown:
        return []
    again = [row[0] for row in db.execute(_AGAIN, (records.to_text(sorted(unknown)), n))]
    db.executemany(
        "UPDATE jobs SET lease_expires_at = ? WHERE id = ?", ((to_millis(until), job_id) for job_id in again)
    )
    return again


def _has_peers(db: sqlite3.Connection, worker_id: str, since: datetime) -> bool:
    found = db.execute("SELECT 1 FROM workers WHERE id <> ? AND last_seen > ? LIMIT 1", (worker_id, to_millis(since)))
    return found.fetchone() is not None
