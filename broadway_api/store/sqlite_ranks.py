"""The order of the SQLite store's queue, see `turns.py`: ranks, given when jobs are queued."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from broadway_api import capabilities
from broadway_api.domain import JobType, Run
from broadway_api.store import records
from broadway_api.store.turns import LATELY, Flow

#: Each step is one look into an index, however many jobs are queued.
_REQUIREMENTS = """
    WITH RECURSIVE found(requirement) AS (
        SELECT min(requirement) FROM jobs WHERE state = 'queued'
        UNION ALL
        SELECT (SELECT min(requirement) FROM jobs WHERE state = 'queued' AND requirement > found.requirement)
        FROM found WHERE found.requirement IS NOT NULL
    )
    SELECT requirement FROM found WHERE requirement IS NOT NULL
"""


def queued_requirements(db: sqlite3.Connection) -> list[str]:
    """What queued jobs require, each text once."""
    return [row["requirement"] for row in db.execute(_REQUIREMENTS)]


def reserve_ranks(
    db: sqlite3.Connection, run: Run, job_type: JobType, requirement: str, number: int, now: datetime
) -> tuple[float, float]:
    """Take ranks for so many jobs of a run; return the first one, and the step from each to the next."""
    fleet = _labels_lately(db, now)
    served = [
        required
        for required in {*queued_requirements(db), requirement}
        if not fleet or any(capabilities.fits(labels, required) for labels in fleet)
    ]
    time = _virtual_time(db, run.priority, served)
    stranded = "" if requirement in served else requirement
    if stranded:
        least = _least_rank(db, [requirement], run.priority)
        time = time if least is None else least
    flow = Flow.of(run, job_type, stranded)
    key = (flow.course, flow.priority, flow.in_front, flow.stranded)
    last = db.execute(
        "SELECT last_rank FROM flows WHERE course = ? AND priority = ? AND in_front = ? AND stranded = ?", key
    ).fetchone()
    start, step = max(time, last["last_rank"] if last else 0.0), 1 / _weight(db, run.course)
    db.execute("INSERT OR REPLACE INTO flows VALUES (?, ?, ?, ?, ?)", (*key, start + number * step))
    return start if flow.in_front else start + step, step


def _virtual_time(db: sqlite3.Connection, priority: int, served: Sequence[str]) -> float:
    """Where the queue is: the least rank that waits, or else the last one given; it never falls.

    A lane, the jobs of one priority, may be ahead of the others, but not behind.
    """
    (overall,) = db.execute(
        "UPDATE queue SET virtual_time = max(virtual_time, coalesce(?, (SELECT max(last_rank) FROM flows), 0))"
        " RETURNING virtual_time",
        (_least_rank(db, served),),
    ).fetchone()
    (in_lane,) = db.execute(
        "INSERT INTO lanes SELECT ?1, max(?2, coalesce(?3, (SELECT max(last_rank) FROM flows WHERE priority = ?1), 0))"
        " WHERE true ON CONFLICT DO UPDATE SET virtual_time = max(virtual_time, excluded.virtual_time)"
        " RETURNING virtual_time",
        (priority, overall, _least_rank(db, served, priority)),
    ).fetchone()
    return float(in_lane)


def _least_rank(db: sqlite3.Connection, served: Sequence[str], priority: int | None = None) -> float | None:
    lane = "" if priority is None else f"AND priority = {priority:d}"
    (least,) = db.execute(
        "SELECT min((SELECT rank FROM jobs WHERE state = 'queued' AND requirement = served.value"
        f" {lane} ORDER BY rank LIMIT 1)) FROM json_each(?) AS served",
        (records.to_text(served),),
    ).fetchone()
    return None if least is None else float(least)


def _labels_lately(db: sqlite3.Connection, now: datetime) -> list[dict[str, str]]:
    since = records.to_millis(now - LATELY)
    rows = db.execute("SELECT DISTINCT labels FROM workers WHERE last_seen > ?", (since,))
    return [records.from_text(row["labels"]) for row in rows]


def _weight(db: sqlite3.Connection, course: str) -> float:
    (weight,) = db.execute(
        "SELECT content ->> ('$.courses.\"' || ? || '\".weight') FROM directory", (course,)
    ).fetchone()
    return 1.0 if weight is None else float(weight)
