"""What the docker runtime does beside a running stage, and what it need not do at all."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from broadway_grader.domain import Job, JobResult, Reason, Stage
from broadway_grader.runner import JobRunner
from broadway_grader.runtimes import layer
from broadway_grader.runtimes.docker import DockerRuntime
from broadway_grader.runtimes.port import Settings
from broadway_grader.workspace import WorkDirectory
from tests.grader.conftest import containers
from tests.grader.stages import IMAGE, sh, until

NO_REGISTRY = "127.0.0.1:1"
#: A stage that says that it runs, and goes on when it is told to.
WAITS = "touch /job/runs; while [ ! -e /job/go ]; do sleep 0.05; done"
#: What one stage asks of the engine.
OF_A_STAGE = ["POST create", "POST attach", "POST attach", "POST start", "POST wait", "DELETE"]


@pytest.fixture
def runtime_name() -> str:
    return "docker"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[WorkDirectory]:
    with WorkDirectory(tmp_path / "work") as directory:
        yield directory


@pytest.fixture
def runner(runtime: DockerRuntime, directory: WorkDirectory) -> JobRunner:
    return JobRunner(runtime, directory, slots=1)


@pytest.fixture
def calls(runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the engine from now on, but for the watch over the disk, which looks when its time has come."""
    monkeypatch.setattr(layer, "INTERVAL", 3600)
    made: list[str] = []
    send = runtime._engine.api.request

    def counting(method: str, url: str, **options: Any) -> Any:
        path = re.sub(r"/v[0-9.]+/(containers/)?([0-9a-f]{64}/?)?", "", urlsplit(url).path)
        made.append(f"{method} {path}".strip())
        return send(method, url, **options)

    monkeypatch.setattr(runtime._engine.api, "request", counting)
    return made


def job(*stages: Stage) -> Job:
    return Job(job_id="697dd0a80a1b2c3d4e5f6011", attempt=1, stages=stages)


def reasons(result: JobResult) -> list[Reason | None]:
    return [stage.reason for stage in result.stages]


def control_groups(container: str) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/*{container}*"))


async def beside(runner: JobRunner, directory: WorkDirectory, engine: Any, *stages: Stage) -> tuple[Any, Path, Any]:
    """A job whose first stage waits: the task, its /job, and what the engine says of the next stage's container."""
    running = asyncio.create_task(runner.run(job(*stages)))
    await until(lambda: list(directory.jobs.glob("*/job/runs")), "the first stage to run", 60)
    instance = runner._runtime._settings.instance  # type: ignore[attr-defined]

    def created() -> list[Any]:
        inspected = [engine.api.inspect_container(container) for container in containers(engine, instance)]
        return [each for each in inspected if each["State"]["Status"] == "created"]

    await until(created, "the next container", 60)
    (path,) = directory.jobs.glob("*/job")
    return running, path, created()[0]


@pytest.mark.parametrize("stages", [1, 3])
async def test_a_job_asks_no_more_of_the_engine_than_this(runner: JobRunner, calls: list[str], stages: int) -> None:
    """No list, no pull, and no look at an image that was looked at once."""
    await runner.run(job(sh("true")))
    calls.clear()
    result = await runner.run(job(*[sh("true")] * stages))
    assert reasons(result) == [None] * stages
    assert sorted(calls) == sorted(OF_A_STAGE * stages)


async def test_the_next_container_is_there_while_a_stage_runs_and_takes_nothing_from_it(
    runner: JobRunner, directory: WorkDirectory, engine: Any
) -> None:
    secret = "f3a94c7e-of-the-second-stage"
    look = f"{WAITS}; env; cat /proc/[0-9]*/environ; grep -rh second-st[a]ge /job /tmp /etc; ls -R /job"
    second = sh("hostname; echo $KEY", env={"KEY": secret}, host_name="b", memory=64 * 1024**2)
    running, path, container = await beside(runner, directory, engine, sh(look, host_name="a"), second)
    assert container["Config"]["Labels"]["broadway.stage"] == "1"
    assert container["HostConfig"]["Memory"] == 64 * 1024**2, "its limits are its own"
    assert (container["State"]["Pid"], container["State"]["StartedAt"][:4]) == (0, "0001"), "it has no process"
    assert control_groups(container["Id"]) == [], "and no control group"
    (path / "go").touch()
    result = await running
    assert reasons(result) == [None, None]
    assert secret not in result.stages[0].stdout.text
    assert result.stages[1].stdout.text == f"b\n{secret}\n"


@pytest.mark.parametrize("end", ["exit 3", "sleep 600"], ids=["fails", "takes too long"])
async def test_a_container_whose_turn_does_not_come_is_removed_without_having_run(
    runner: JobRunner, directory: WorkDirectory, engine: Any, calls: list[str], end: str
) -> None:
    timeout = 60 if end == "exit 3" else 4
    first = sh(f"{WAITS}; {end}", timeout=timeout)
    running, path, container = await beside(runner, directory, engine, first, sh("touch /job/ran"))
    (path / "go").touch()
    result = await running
    assert reasons(result) == [Reason.STAGE_FAILED if end == "exit 3" else Reason.TIMEOUT]
    assert calls.count("POST start") == 1
    assert container["Id"] not in containers(engine, container["Config"]["Labels"]["broadway.instance"])


async def test_so_it_is_when_the_job_is_cancelled(runner: JobRunner, directory: WorkDirectory, engine: Any) -> None:
    running, _, container = await beside(runner, directory, engine, sh(WAITS), sh("true"))
    running.cancel()
    await asyncio.wait({running})
    assert containers(engine, container["Config"]["Labels"]["broadway.instance"]) == []


@pytest.mark.parametrize("steps", range(0, 40, 5))
async def test_a_job_may_be_cancelled_at_any_moment(
    runner: JobRunner, engine: Any, settings: Settings, steps: int
) -> None:
    running = asyncio.create_task(runner.run(job(*[sh("true")] * 3)))
    for _ in range(steps):
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    assert containers(engine, settings.instance) == []


async def test_the_next_life_of_a_grader_finds_it(
    runner: JobRunner, directory: WorkDirectory, engine: Any, settings: Settings
) -> None:
    running, *_ = await beside(runner, directory, engine, sh(WAITS), sh("true"))
    next_life = DockerRuntime(settings)
    await next_life.open()
    await next_life.remove_leftovers()
    assert containers(engine, settings.instance) == []
    await next_life.close()
    running.cancel()
    await asyncio.wait({running})


@pytest.fixture
def may_remove(runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is removed before this is set."""
    remove, may_remove = runtime._engine.api.remove_container, threading.Event()

    def held_up(*arguments: Any, **named: Any) -> Any:
        assert may_remove.wait(60), "the removal was waited for"
        return remove(*arguments, **named)

    monkeypatch.setattr(runtime._engine.api, "remove_container", held_up)
    return may_remove


async def test_a_container_is_removed_while_the_next_stage_runs(
    runner: JobRunner, directory: WorkDirectory, may_remove: threading.Event
) -> None:
    running = asyncio.create_task(runner.run(job(sh("true"), sh("touch /job/second"))))
    await until(lambda: list(directory.jobs.glob("*/job/second")), "the second stage", 50)
    may_remove.set()
    assert reasons(await running) == [None, None]


async def test_a_result_is_there_while_the_last_container_is_removed(
    runner: JobRunner, engine: Any, settings: Settings, may_remove: threading.Event
) -> None:
    async with runner.running(job(sh("true"))) as result:
        assert reasons(result) == [None]
        assert len(containers(engine, settings.instance)) == 1
        may_remove.set()
    assert containers(engine, settings.instance) == []


async def test_but_that_of_a_failed_stage_comes_after_its_container(
    runner: JobRunner, runtime: DockerRuntime, engine: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may not have ended before it is removed."""
    call, is_there = runtime._engine.call, asyncio.Event()

    async def held_up_beside_the_stage(asked: Any, *arguments: Any, **named: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        # What the stage itself does, its result waits for. What somebody else does for it comes as late as it may.
        if asked == runtime._engine.api.remove_container and not task.get_name().startswith("stage "):
            await asyncio.wait_for(is_there.wait(), 60)
        return await call(asked, *arguments, **named)

    monkeypatch.setattr(runtime._engine, "call", held_up_beside_the_stage)
    async with runner.running(job(sh("exit 3"))) as result:
        left = containers(engine, settings.instance)
        is_there.set()
        assert (reasons(result), left) == ([Reason.STAGE_FAILED], [])


async def test_an_image_that_cannot_be_had_is_the_blame_of_its_own_stage(runner: JobRunner) -> None:
    result = await runner.run(job(sh("sleep 1"), Stage(image=f"{NO_REGISTRY}/no/such:image"), sh("true")))
    assert reasons(result) == [None, Reason.IMAGE_UNAVAILABLE]


async def test_an_image_that_changes_is_looked_at_again(runner: JobRunner, engine: Any, calls: list[str]) -> None:
    name = "broadway-test-news:latest"
    engine.images.get(IMAGE).tag(name)
    stage = Stage(image=name, entry_point=["true"])

    async def digest() -> str | None:
        return (await runner.run(job(stage))).stages[0].image_digest

    try:
        assert {await digest(), await digest()} == {engine.images.get(IMAGE).id}
        other = engine.images.get("broadway-python:latest")
        other.tag(name)
        for _ in range(30):  # news travel
            if (seen := await digest()) == other.id:
                break
        assert seen == other.id
    finally:
        engine.api.remove_image(name)


async def test_without_news_it_is_looked_at_every_time(
    runner: JobRunner, runtime: DockerRuntime, calls: list[str]
) -> None:
    """And the news are asked for again: an engine that was restarted has forgotten who listened."""
    await runner.run(job(sh("true")))
    assert runtime._news._line is not None
    runtime._news._line.disconnect()
    await until(lambda: runtime._news._line is None, "the end of the news")
    calls.clear()
    await runner.run(job(sh("true")))
    await runner.run(job(sh("true")))
    assert calls[:2] == ["GET events", f"GET images/{IMAGE}/json"]
    assert sorted(calls[2:]) == sorted(OF_A_STAGE * 2)
