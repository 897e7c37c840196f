"""The store in MongoDB, for any number of API processes. See `port.py` for what each method promises.

Each change is one write to one document, guarded by its filter; what a method does after it may be cut off anywhere
and is done again by asking again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from broadway_api.store.mongo_assignments import MongoAssignments
from broadway_api.store.mongo_deliveries import MongoDeliveries
from broadway_api.store.mongo_directory import MongoDirectory
from broadway_api.store.mongo_documents import INDEXES
from broadway_api.store.mongo_engine import MongoEngine, translate_errors
from broadway_api.store.mongo_jobs import MongoJobs
from broadway_api.store.mongo_queue import MongoQueue
from broadway_api.store.mongo_runs import MongoRuns
from broadway_api.store.mongo_secrets import MongoSecrets
from broadway_api.store.mongo_upgrades import UPGRADES
from broadway_api.store.mongo_views import MongoViews
from broadway_api.store.mongo_workers import MongoWorkers


@translate_errors
class MongoStore(
    MongoRuns,
    MongoWorkers,
    MongoJobs,
    MongoQueue,
    MongoDirectory,
    MongoAssignments,
    MongoSecrets,
    MongoDeliveries,
    MongoViews,
):
    """A store in the database that `url` names."""

    def __init__(self, url: str) -> None:
        """Raises StoreUrlInvalid."""
        super().__init__(MongoEngine(url, INDEXES, UPGRADES))

    async def __aenter__(self) -> Self:
        try:
            await self._engine.open()
        except BaseException:
            await self._engine.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._exchange.close()
        await self._ahead.close()
        await self._places.close()
        await self._bell.close()
        await self._broadcast.close()
        await self._engine.close()

    async def ping(self) -> None:
        await self._engine.ping()

    async def time(self) -> datetime:
        return await self._engine.time()

    async def jobs_queued_elsewhere(self) -> None:
        await self._bell.heard()

    async def broadcast(self, note: Mapping[str, Any]) -> None:
        await self._broadcast.send(note)

    async def overheard(self) -> list[Mapping[str, Any]]:
        return await self._broadcast.heard()
