"""Places in the SQLite store's queue, see `places.py`, each within its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, MutableMapping, Sequence
from functools import cache

from broadway_api.domain import Job
from broadway_api.store.places import EVERYTHING, Keys, Lane, Opening, Outlook, Place

#: How far a frontier is moved: so many hand-outs cost one write more, and a position counts some more keys.
AHEAD = 64


def frontiers(db: sqlite3.Connection) -> dict[Lane, float]:
    """How far each lane was handed out, at least."""
    rows = db.execute("SELECT requirement, priority, rank FROM frontiers")
    return {(requirement, priority): rank for requirement, priority, rank in rows}


def handed_out(db: sqlite3.Connection, known: MutableMapping[Lane, float], jobs: Iterable[tuple[Job, float]]) -> None:
    """Move the frontiers of the jobs' lanes to their ranks or beyond. `known`: all of them, as they are."""
    furthest: dict[Lane, float] = {}
    for job, rank in jobs:
        lane = (job.requirement, job.priority)
        if rank > known.get(lane, -EVERYTHING):
            furthest[lane] = max(rank, furthest.get(lane, rank))
    for lane, rank in furthest.items():
        (ahead,) = db.execute(
            "SELECT max(rank) FROM (SELECT rank FROM jobs INDEXED BY jobs_by_urgency WHERE state = 'queued'"
            " AND requirement = ? AND priority = ? AND rank > ? ORDER BY rank LIMIT ?)",
            (*lane, rank, AHEAD),
        ).fetchone()
        known[lane] = rank if ahead is None else float(ahead)
        db.execute("INSERT OR REPLACE INTO frontiers VALUES (?, ?, ?)", (*lane, known[lane]))


def forget_openings(db: sqlite3.Connection, run_id: str) -> None:
    """Nothing of the run is in the queue any more, or will be in the same change."""
    db.execute("DELETE FROM openings WHERE run_id = ?", (run_id,))


def jobs_before(db: sqlite3.Connection, places: Sequence[Place], counted: Collection[str]) -> list[int]:
    """How many queued jobs that require one of `counted` stand before each of some places."""
    openings = db.execute("SELECT requirement, priority, first, step, jobs FROM openings")
    outlook = Outlook(
        openings=[
            Opening(lane=(requirement, priority), first=first, step=step, jobs=jobs)
            for requirement, priority, first, step, jobs in openings
        ],
        frontiers=frontiers(db),
    )

    @cache
    def count(keys: Keys) -> int:
        conditions, values = ["state = 'queued'", "requirement = ?", "priority = ?"], [*keys.lane]
        if keys.end is not None:
            conditions.append("rank = ? AND id < ?" if keys.ties else "(rank, id) < (?, ?)")
            values += keys.end
        where = " AND ".join(conditions)
        counted = db.execute(f"SELECT count(*) FROM jobs INDEXED BY jobs_by_urgency WHERE {where}", values)
        return int(counted.fetchone()[0])

    def before(place: Place) -> int:
        number, keys = outlook.before(place, counted)
        return number + sum(map(count, keys))

    return [before(place) for place in places]
