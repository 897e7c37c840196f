"""Every test here runs once for each kind of store, on the real thing.

A standalone mongod runs the very code that a replica set does, without its bell and with less to wait for. It takes
those tests that are about what could differ; with BROADWAY_TEST_EVERY_STORE=1 all of them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from broadway_api.store import open_store
from broadway_api.store.port import Store
from tests.contract.backends import Backend, MongoBackend, SqliteBackend

MONGO = {"mongo-standalone": "mongo_standalone_url", "mongo-replica-set": "mongo_replica_set_url"}


#: Modules whose tests run on a standalone mongod, too.
STANDALONE = ("test_opening", "test_claims", "test_leases", "test_runs", "test_between_processes")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its kinds of store."""
    says_itself = any("backend" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    module = metafunc.module.__name__.rpartition(".")[2]
    if "backend" in metafunc.fixturenames and not says_itself and module != "test_mongo":  # which has its own
        everywhere = module in STANDALONE or os.environ.get("BROADWAY_TEST_EVERY_STORE") == "1"
        kinds = [kind for kind in ("sqlite", *MONGO) if everywhere or kind != "mongo-standalone"]
        metafunc.parametrize("backend", kinds, indirect=True)


@pytest.fixture
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
