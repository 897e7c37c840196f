"""An API for each module of tests, with a clean one where a test stops it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broadway_client.client import Client
from tests.client.serving import ApiProcess, FakeWorker


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """A running API."""
    yield from _running(tmp_path_factory.mktemp("api"))


@pytest.fixture
def own_api(tmp_path: Path) -> Iterator[ApiProcess]:
    """A running API that nobody else uses, to be stopped and started."""
    yield from _running(tmp_path)


def _running(directory: Path) -> Iterator[ApiProcess]:
    api = ApiProcess(directory)
    try:
        api.start()
        yield api
    finally:
        api.stop()


@pytest.fixture
def client(api: ApiProcess) -> Iterator[Client]:
    """A client of the module's API."""
    with api.client() as client:
        yield client


@pytest.fixture
def worker(api: ApiProcess) -> Iterator[FakeWorker]:
    """A worker of the module's API."""
    worker = FakeWorker(api)
    yield worker
    worker.leave()
