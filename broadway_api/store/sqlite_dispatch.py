"""What workers take from the SQLite store and bring back. See `port.py` for what each method promises.

One write each, and brief unless it is about more jobs than nearly all are.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from broadway_api.domain import Claim, FinishedJob, Job, Result
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.store.sqlite_cache import DispatchCache
from broadway_api.store.sqlite_claims import hand_out, note_asking, renew_leases
from broadway_api.store.sqlite_engine import SqliteEngine
from broadway_api.store.sqlite_queries import BRIEFLY, SqlitePart
from broadway_api.store.sqlite_results import answers_to, take_each
from broadway_api.store.sqlite_transaction import FileConnection
from broadway_api.store.turns import Turns

T = TypeVar("T")

#: Characters of logs that a brief write holds at most.
_BRIEF_LOGS = 262_144


class SqliteDispatch(SqlitePart):
    """Jobs: handed out, held, ended."""

    def __init__(self, engine: SqliteEngine) -> None:
        super().__init__(engine)
        self._turns = Turns()
        self._cache = DispatchCache()

    async def claim_jobs(
        self, worker_id: str, n: int, now: datetime, lease: timedelta, *, holding: Sequence[str] = ()
    ) -> list[Job]:
        def work(db: sqlite3.Connection) -> list[Job]:
            note_asking(db, self._cache, worker_id, now)
            return hand_out(db, self._cache, self._turns, worker_id, n, now, lease, holding=holding)

        return await self._dispatch(work, brief=n <= BRIEFLY)

    async def finish_job(self, claim: Claim, result: Result, now: datetime) -> FinishedJob:
        (answer,) = await self.finish_jobs([(claim, result)], now)
        if isinstance(answer, FinishedJob):
            return answer
        raise answer

    async def finish_jobs(
        self, results: Sequence[tuple[Claim, Result]], now: datetime
    ) -> list[FinishedJob | ClaimLost | JobNotFound]:
        def work(db: sqlite3.Connection) -> list[FinishedJob | ClaimLost | JobNotFound]:
            return answers_to(db, self._cache, take_each(db, self._cache, results, now))

        return await self._dispatch(work, brief=_are_brief(results))

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
            note_asking(db, self._cache, worker_id, now)
            ends = take_each(db, self._cache, results, now)
            jobs = hand_out(db, self._cache, self._turns, worker_id, n, now, lease, holding=holding)
            return answers_to(db, self._cache, ends), jobs

        return await self._dispatch(work, brief=n <= BRIEFLY and _are_brief(results))

    async def heartbeat(
        self, worker_id: str, running: Sequence[Claim] | None, now: datetime, lease: timedelta
    ) -> list[str]:
        def work(db: sqlite3.Connection) -> list[str]:
            return renew_leases(db, worker_id, running, now, lease)

        return await self._dispatch(work, brief=len(running or ()) <= BRIEFLY)

    def _dispatch(self, work: Callable[[sqlite3.Connection], T], *, brief: bool = False) -> asyncio.Future[T]:
        """Write what changes nothing in the file that it does not change in the cache as well."""

        def work_with_cache(db: FileConnection) -> T:
            self._cache.begin(db)
            result = work(db)
            self._cache.end(db)
            return result

        return self._write(work_with_cache, brief=brief)


def _are_brief(results: Sequence[tuple[Claim, Result]]) -> bool:
    characters = 0
    for _, result in results:
        for log in result.logs:
            characters += len(log.stdout) + len(log.stderr)
    return len(results) <= BRIEFLY and characters <= _BRIEF_LOGS
