"""What workers take from the SQLite store and bring back. See `port.py` for what each method promises.

One write each, and brief unless it is about more jobs than nearly all are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

from broadway_api.domain import Claim, FinishedJob, Job, Result
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.sqlite_claims import hand_out
from broadway_api.store.sqlite_engine import SqliteEngine
from broadway_api.store.sqlite_queries import BRIEFLY, SqlitePart, see_worker
from broadway_api.store.sqlite_results import accept, accept_each
from broadway_api.store.turns import Turns

#: Characters of logs that a brief write holds at most.
_BRIEF_LOGS = 262_144


class SqliteDispatch(SqlitePart):
    """Jobs: handed out, ended."""

    def __init__(self, engine: SqliteEngine) -> None:
        super().__init__(engine)
        self._turns = Turns()

    async def claim_jobs(
        self, worker_id: str, n: int, now: datetime, lease: timedelta, *, holding: Sequence[str] = ()
    ) -> list[Job]:
        def work(db: sqlite3.Connection) -> list[Job]:
            worker = see_worker(db, worker_id, now, asked=True)
            return hand_out(db, self._turns, worker, n, now, lease, holding=holding)

        return await self._write(work, brief=n <= BRIEFLY)

    async def finish_job(self, claim: Claim, result: Result, now: datetime) -> FinishedJob:
        return await self._write(lambda db: accept(db, claim, result, now), brief=_are_brief([(claim, result)]))

    async def finish_jobs(
        self, results: Sequence[tuple[Claim, Result]], now: datetime
    ) -> list[FinishedJob | ClaimLost | JobNotFound]:
        return await self._write(lambda db: accept_each(db, results, now), brief=_are_brief(results))

    async def exchange(
        self,
        worker_id: str,
        results: Sequence[tuple[Claim, Result]],
        n: int,
        now: datetime,
        lease: timedelta,
        *,
        holding: Sequence[str] = (),
    ) -> tuple[list[FinishedJob | ClaimLost | JobNotFound], list[Job]]:
        def work(db: sqlite3.Connection) -> tuple[list[FinishedJob | ClaimLost | JobNotFound], list[Job]]:
            worker = see_worker(db, worker_id, now, asked=True)
            answers = accept_each(db, results, now)
            return answers, hand_out(db, self._turns, worker, n, now, lease, holding=holding)

        return await self._write(work, brief=n <= BRIEFLY and _are_brief(results))


def _are_brief(results: Sequence[tuple[Claim, Result]]) -> bool:
    logs = (log for _, result in results for log in result.logs)
    return len(results) <= BRIEFLY and sum(len(log.stdout) + len(log.stderr) for log in logs) <= _BRIEF_LOGS
