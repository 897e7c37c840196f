"""Fixtures of every kind of test."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services


def pytest_configure() -> None:
    """Let SIGTERM end the session as Ctrl-C does: what the fixtures have started is stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def mongo_standalone_url() -> Iterator[str]:
    """URL of a standalone mongod, started for this session; `services.with_database` names a database of your own."""
    with services.mongo_standalone() as url:
        yield url


@pytest.fixture(scope="session")
def mongo_replica_set_url() -> Iterator[str]:
    """URL of a replica set of three mongods, started for this session."""
    with services.mongo_replica_set() as url:
        yield url


@pytest.fixture
def sqlite_url() -> Iterator[str]:
    """URL of a new embedded store, in memory where there is such a file system: for tests that are not about fsync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="broadway-", dir=memory if memory.is_dir() else None) as directory:
        yield f"sqlite:///{directory}/broadway.db"
