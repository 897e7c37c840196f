"""The embedded store: one SQLite file, one process. See `port.py` for what each method promises.

Every write is a transaction of its own, or as if it were, so a method's reads and writes are one atomic step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from broadway_api.store.sqlite_assignments import SqliteAssignments
from broadway_api.store.sqlite_deliveries import SqliteDeliveries
from broadway_api.store.sqlite_directory import SqliteDirectory
from broadway_api.store.sqlite_dispatch import SqliteDispatch
from broadway_api.store.sqlite_engine import SqliteEngine
from broadway_api.store.sqlite_jobs import SqliteJobs
from broadway_api.store.sqlite_queue import SqliteQueue
from broadway_api.store.sqlite_runs import SqliteRuns
from broadway_api.store.sqlite_schema import VERSIONS
from broadway_api.store.sqlite_secrets import SqliteSecrets
from broadway_api.store.sqlite_views import SqliteViews
from broadway_api.store.sqlite_workers import SqliteWorkers


class SqliteStore(
    SqliteRuns,
    SqliteWorkers,
    SqliteDispatch,
    SqliteJobs,
    SqliteQueue,
    SqliteDirectory,
    SqliteAssignments,
    SqliteSecrets,
    SqliteDeliveries,
    SqliteViews,
):
    """A store in the file `path`, made with its directory if it is not there."""

    def __init__(self, path: Path) -> None:
        super().__init__(SqliteEngine(path, VERSIONS))

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._engine.close()

    async def ping(self) -> None:
        same = "UPDATE queue SET virtual_time = virtual_time"
        await self._dispatch(lambda db: db.execute(same).rowcount)  # leaves everything as it is known

    async def time(self) -> datetime:
        return datetime.now(UTC)

    async def jobs_queued_elsewhere(self) -> None:
        await asyncio.Event().wait()  # there is no elsewhere: the file is this process's alone

    async def broadcast(self, note: Mapping[str, Any]) -> None:
        """Nobody is there to hear it."""

    async def overheard(self) -> list[Mapping[str, Any]]:
        nothing: asyncio.Future[list[Mapping[str, Any]]] = asyncio.get_running_loop().create_future()
        return await nothing
