"""An API for each test, and what no test may leave behind: a fault in the log, or a task that nobody ended."""

from __future__ import annotations

import gc
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pymongo
import pytest

from tests import services
from tests.api.serving import Api, serving


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request of any client makes the API log a traceback or an error."""
    caplog.set_level(logging.DEBUG, logger="broadway_api")
    yield
    gc.collect()  # asyncio tells of a task that was dropped when it is collected
    faults = [record.getMessage() for record in caplog.get_records("call") if record.exc_info or record.levelno >= 40]
    assert faults == []


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A new embedded store."""
    return f"sqlite:///{tmp_path / 'broadway.db'}"


@pytest.fixture
async def api(sqlite_url: str) -> AsyncIterator[Api]:
    """An API over an embedded store."""
    async with serving(sqlite_url) as running:
        yield running


@pytest.fixture(params=["sqlite", "mongo"])
def any_store_url(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[str]:
    """A new store of each kind."""
    if request.param == "sqlite":
        yield sqlite_url
        return
    server = request.getfixturevalue("mongo_standalone_url")
    name = f"api_{uuid.uuid4().hex}"
    yield services.with_database(server, name)
    with pymongo.MongoClient[dict[str, object]](server) as client:
        client.drop_database(name)


@pytest.fixture
async def any_api(any_store_url: str) -> AsyncIterator[Api]:
    """An API over a store of each kind."""
    async with serving(any_store_url) as running:
        yield running
