"""Real processes, real engine, real databases; everything started here is stopped here, also when a test fails."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import docker.errors
import pymongo
import pytest

from tests import services
from tests.e2e.fleet import Fleet


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """A Docker engine with the two images; without it these tests fail, they are not skipped."""
    try:
        client = docker.from_env()
        try:
            for image in ("broadway-busybox:latest", "broadway-python:latest"):
                client.images.get(image)
        finally:
            client.close()
    except docker.errors.DockerException as error:
        raise services.ServiceMissing(f"run `make services`: {error}") from error


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Callable[[str], Fleet]]:
    """Makes fleets on the store of a URL (empty: the embedded one); at the end kills what a test did not stop."""
    made: list[Fleet] = []

    def make(store_url: str = "") -> Fleet:
        directory = tmp_path / f"fleet-{len(made)}"
        directory.mkdir()
        made.append(Fleet(directory, store_url))
        return made[-1]

    yield make
    for fleet in made:
        fleet.kill()


@pytest.fixture
def fleet(fleets: Callable[[str], Fleet]) -> Fleet:
    """A fleet on the embedded store, its API started."""
    fleet = fleets("")
    fleet.start_api()
    return fleet


@pytest.fixture
def mongo_database(mongo_replica_set_url: str) -> Iterator[str]:
    """URL of an empty database of a test's own on the replica set; dropped at the end."""
    name = f"e2e_{uuid.uuid4().hex}"
    yield services.with_database(mongo_replica_set_url, name)
    with pymongo.MongoClient[dict[str, object]](mongo_replica_set_url) as client:
        client.drop_database(name)


@pytest.fixture(params=["sqlite", "mongo"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Each store in turn."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("mongo_database"))


@pytest.fixture(params=["docker", "sandbox"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime in turn."""
    return str(request.param)
