"""Places in the SQLite store's queue, see `places.py`, each within its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from functools import cache

from broadway_api.domain import Job
from broadway_api.store.places import Keys, Lane, Opening, Outlook, Place


def handed_out(db: sqlite3.Connection, jobs: Iterable[tuple[Job, float]]) -> None:
    """Move the frontiers of the jobs' lanes to their ranks."""
    furthest: dict[Lane, float] = {}
    for job, rank in jobs:
        lane = (job.requirement, job.priority)
        furthest[lane] = max(rank, furthest.get(lane, rank))
    db.executemany(
        "INSERT INTO frontiers VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET rank = excluded.rank WHERE excluded.rank > rank",
        ((*lane, rank) for lane, rank in furthest.items()),
    )


def forget_openings(db: sqlite3.Connection, run_id: str) -> None:
    """Nothing of the run is in the queue any more, or will be in the same change."""
    db.execute("DELETE FROM openings WHERE run_id = ?", (run_id,))


def jobs_before(db: sqlite3.Connection, places: Sequence[Place], counted: Collection[str]) -> list[int]:
    """How many queued jobs that require one of `counted` stand before each of some places."""
    openings = db.execute("SELECT requirement, priority, first, step, jobs FROM openings")
    frontiers = db.execute("SELECT requirement, priority, rank FROM frontiers")
    outlook = Outlook(
        openings=[
            Opening(lane=(requirement, priority), first=first, step=step, jobs=jobs)
            for requirement, priority, first, step, jobs in openings
        ],
        frontiers={(requirement, priority): rank for requirement, priority, rank in frontiers},
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
