"""Fixtures of the grader's tests: real runtimes, and a directory that plays /job."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import pytest_asyncio

from broadway_grader.removal import remove_tree
from broadway_grader.runtimes import RUNTIMES
from broadway_grader.runtimes.confinement import INSTANCE_LABEL
from broadway_grader.runtimes.port import Limits, Place, Runtime, Settings
from tests.grader.stages import IMAGE

LIMITS = Limits(memory=128 * 1024**2, cpus=1.0, pids=64, log_bytes=20_000)


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The Docker Engine of this machine, with the tests' image in it. Its lack fails a test, it never skips one."""
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        pytest.fail(f"no Docker Engine answers ({error}): run `make services`")
    try:
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound:
        client.close()
        pytest.fail(f"the image {IMAGE} is missing: run `make services`")
    yield client
    client.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(limits=LIMITS, slots=4, instance=f"test-{uuid.uuid4().hex}", work_dir=tmp_path)


@pytest.fixture(params=list(RUNTIMES))
def runtime_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def runtime(runtime_name: str, settings: Settings, engine: Any) -> AsyncIterator[Runtime]:
    """Each runtime in turn, opened; afterwards no container of it may be left."""
    runtime = RUNTIMES[runtime_name](settings)
    await runtime.open()
    try:
        yield runtime
    finally:
        await runtime.close()
    assert containers(engine, settings.instance) == []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A stage's place, whose directory is removed as a hostile one, as a grader would."""
    directory = tmp_path / "job"
    directory.mkdir()
    directory.chmod(0o777)
    yield Place(job_id="697dd0a80a1b2c3d4e5f6011", attempt=2, stage=1, slot=1, directory=directory)
    remove_tree(directory)
    assert not directory.exists()


def containers(engine: Any, instance: str) -> list[str]:
    """The ids of a grader's containers, running or not."""
    found = engine.api.containers(all=True, filters={"label": f"{INSTANCE_LABEL}={instance}"})
    return [container["Id"] for container in found]
