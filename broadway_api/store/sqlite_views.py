"""What people look at, in the SQLite store. See `port.py` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from broadway_api.domain import Cause, Job, JobMeasure, JobQuery, JobSort, JobState, Reason
from broadway_api.store import records
from broadway_api.store.sqlite_queries import SqlitePart, marks, read_jobs
from broadway_api.store.sqlite_schema import VIEWED_COLUMNS

#: What jobs are sorted by, as SQL.
_SORTS = {
    JobSort.ROSTER: "seq",
    JobSort.STATE: "state || ifnull(reason, '')",
    JobSort.SCORE: "score",
    JobSort.DURATION: "finished_at - started_at",
    JobSort.FINISHED: "finished_at",
    JobSort.ATTEMPT: "attempt",
}


class SqliteViews(SqlitePart):
    """Lists, numbers and clusters: reads only, each in one go."""

    async def run_counts(self, run_ids: Sequence[str]) -> Mapping[str, Mapping[JobState, int]]:
        def work(db: sqlite3.Connection) -> Mapping[str, Mapping[JobState, int]]:
            counts: dict[str, dict[JobState, int]] = {}
            for run_id, state, number in db.execute(
                f"SELECT run_id, state, count(*) FROM jobs WHERE run_id IN ({marks(run_ids)}) GROUP BY run_id, state",
                tuple(run_ids),
            ):
                counts.setdefault(run_id, {})[JobState(state)] = number
            return counts

        return await self._read(work)

    async def find_jobs(self, run_id: str, query: JobQuery, *, limit: int, offset: int) -> tuple[list[Job], int]:
        where, values = _condition(run_id, query)
        by, direction = _SORTS[query.sort], "DESC" if query.descending else "ASC"
        rest = f"WHERE {where} ORDER BY ({by}) IS NULL, {by} {direction}, seq {direction} LIMIT ? OFFSET ?"

        def work(db: sqlite3.Connection) -> tuple[list[Job], int]:
            total = db.execute(f"SELECT count(*) FROM jobs WHERE {where}", values).fetchone()[0]
            return read_jobs(db, rest, (*values, limit, offset), columns=VIEWED_COLUMNS), int(total)

        return await self._read(work)

    async def causes(self, run_id: str, limit: int) -> list[Cause]:
        def work(db: sqlite3.Connection) -> list[Cause]:
            groups = db.execute(
                "SELECT reason, cause, count(*) AS jobs, min(seq) AS first FROM jobs INDEXED BY jobs_by_cause"
                " WHERE run_id = ? AND state = 'failed' GROUP BY reason, cause ORDER BY jobs DESC, first LIMIT ?",
                (run_id, limit),
            ).fetchall()
            return [
                Cause(
                    reason=Reason(group["reason"]),
                    text=group["cause"],
                    jobs=group["jobs"],
                    example=read_jobs(
                        db, "WHERE run_id = ? AND seq = ?", (run_id, group["first"]), columns=VIEWED_COLUMNS
                    )[0],
                )
                for group in groups
            ]

        return await self._read(work)

    async def measures(self, run_id: str) -> list[JobMeasure]:
        return await self._read(
            lambda db: [
                JobMeasure(milliseconds=row[0], score=row[1], max_score=row[2])
                for row in db.execute(
                    "SELECT finished_at - started_at, score, max_score FROM jobs"
                    " WHERE run_id = ? AND type = 'student' AND state IN ('succeeded', 'failed')",
                    (run_id,),
                )
            ]
        )


def _condition(run_id: str, query: JobQuery) -> tuple[str, list[object]]:
    conditions: list[str] = ["run_id = ?"]
    values: list[object] = [run_id]
    if query.states:
        conditions.append(f"state IN ({marks(query.states)})")
        values += query.states
    for column, value in (("reason", query.reason), ("cause", query.cause)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if query.text:
        # As it stands in the JSON text of a roster entry.
        text = records.to_text(query.text)[1:-1]
        for special in "\\%_":
            text = text.replace(special, f"\\{special}")
        conditions.append("(id = ? OR student LIKE ? ESCAPE '\\')")
        values += [query.text, f"%{text}%"]
    return " AND ".join(conditions), values
