"""Every test here runs once for each kind of store, on the real thing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from broadway_api.store import open_store
from broadway_api.store.port import Store
from tests.contract.backends import Backend, MongoBackend, SqliteBackend

MONGO = {"mongo-standalone": "mongo_standalone_url", "mongo-replica-set": "mongo_replica_set_url"}


@pytest.fixture(params=["sqlite", *MONGO])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """An empty store's place, of each kind."""
    if request.param == "sqlite":
        yield SqliteBackend(tmp_path)
        return
    url: str = request.getfixturevalue(MONGO[request.param])
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        mongo = MongoBackend(url, client)
        yield mongo
        mongo.clear()


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    """An open, empty store."""
    async with open_store(backend.url) as opened:
        yield opened


@pytest.fixture
async def peer(backend: Backend, store: Store) -> AsyncIterator[Store]:
    """The same store as another API process has it open; where only one may, the very same object."""
    if not backend.shared:
        yield store
        return
    async with open_store(backend.url) as opened:
        yield opened
