"""The work directory and the /job directories in it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from broadway_grader.clock import utc_now
from broadway_grader.domain import Job, Reason, Stage, StageResult
from broadway_grader.ending import Ending
from broadway_grader.errors import SetupError
from broadway_grader.runner import JobRunner
from broadway_grader.runtimes.port import OnOutput, Place, nobody
from broadway_grader.workspace import WorkDirectory
from tests.grader.stages import until

JOB_ID = "697dd0a80a1b2c3d4e5f6011"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[WorkDirectory]:
    with WorkDirectory(tmp_path / "work") as directory:
        yield directory


async def test_a_job_directory_is_open_below_one_that_is_not(directory: WorkDirectory) -> None:
    async with directory.workspace(JOB_ID) as workspace:
        assert stat.S_IMODE(workspace.path.stat().st_mode) == 0o777
        assert stat.S_IMODE(workspace.path.parent.stat().st_mode) == 0o700
        assert workspace.path.is_absolute()
    assert list(directory.jobs.iterdir()) == []


async def test_the_same_job_twice_has_two_directories(directory: WorkDirectory) -> None:
    async with directory.workspace(JOB_ID) as one, directory.workspace(JOB_ID) as two:
        assert one.path != two.path


async def test_a_directory_is_removed_also_when_its_job_is_cancelled(directory: WorkDirectory) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with directory.workspace(JOB_ID) as workspace:
            (workspace.path / "file").touch()
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert list(directory.jobs.iterdir()) == []


def test_two_graders_cannot_share_a_directory(directory: WorkDirectory) -> None:
    with pytest.raises(SetupError, match="another grader uses"), WorkDirectory(directory.path):
        pass


def test_a_directory_that_was_given_back_can_be_used_again(tmp_path: Path) -> None:
    with WorkDirectory(tmp_path) as first:
        instance = first.instance
    with WorkDirectory(tmp_path) as second:
        assert second.instance == instance, "by which containers of the earlier life are known"


def test_a_directory_that_cannot_be_made_is_a_set_up_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot use the work directory"), WorkDirectory(tmp_path / "file" / "work"):
        pass


def test_leftovers_are_removed(directory: WorkDirectory) -> None:
    left = directory.jobs / f"{JOB_ID}-left"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "file").touch()
    directory.remove_leftovers()
    assert list(directory.jobs.iterdir()) == []


async def test_job_and_inputs_can_be_read_by_everybody(directory: WorkDirectory) -> None:
    before = os.umask(0o077)
    try:
        async with directory.workspace(JOB_ID) as workspace:
            workspace.write_input("roster.json", b"[]")
            assert stat.S_IMODE((workspace.path / "roster.json").stat().st_mode) == 0o644
            assert stat.S_IMODE(workspace.path.stat().st_mode) == 0o777
    finally:
        os.umask(before)


async def test_inputs_follow_no_link_and_replace_nothing(directory: WorkDirectory, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with directory.workspace(JOB_ID) as workspace:
        (workspace.path / "roster.json").symlink_to(outside / "file")
        with pytest.raises(FileExistsError):
            workspace.write_input("roster.json", b"[]")
        workspace.path.rename(workspace.path.with_name("moved"))
        workspace.path.symlink_to(outside)
        workspace.write_input("other.json", b"[]")
        assert (workspace.path.with_name("moved") / "other.json").exists(), (
            "in the directory that was made, not its name"
        )
        assert list(outside.iterdir()) == []
    assert list(directory.jobs.iterdir()) == []
    assert outside.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/x"])
async def test_inputs_have_plain_names(directory: WorkDirectory, name: str) -> None:
    async with directory.workspace(JOB_ID) as workspace:
        with pytest.raises(ValueError, match="plain file name"):
            workspace.write_input(name, b"")


class ScriptedRuntime:
    """A runtime whose stages end as their images say: ok, fail or crash; keeps what it saw in /job."""

    name = "scripted"
    sees_our_mounts = True

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[str]]] = []
        self.roster: object = None
        self.jobs: object = None
        self.may_release = asyncio.Event()
        self.may_release.set()

    async def run_stage(
        self,
        stage: Stage,
        place: Place,
        ending: Ending | None = None,
        on_output: OnOutput = nobody,
        *,
        following: Stage | None = None,
    ) -> StageResult:
        self._look(place)
        if stage.image == "crash":
            raise RuntimeError("out of the blue")
        reason = Reason.TIMEOUT if stage.image == "fail" else None
        return StageResult(started_at=utc_now(), finished_at=utc_now(), runtime=self.name, reason=reason)

    def _look(self, place: Place) -> None:
        names = sorted(path.name for path in place.directory.iterdir())
        self.seen.append((place.stage, names))
        if "roster.json" in names:
            self.roster = json.loads((place.directory / "roster.json").read_bytes())
        if "jobs.json" in names:
            self.jobs = json.loads((place.directory / "jobs.json").read_bytes())
        (place.directory / f"of-stage-{place.stage}").touch()

    async def open(self) -> str:
        return self.name

    async def remove_leftovers(self) -> None: ...
    async def close(self) -> None: ...

    async def release(self, slot: int) -> None:
        await self.may_release.wait()


def job(*images: str, students: list[object] | None = None) -> Job:
    return Job(job_id=JOB_ID, attempt=3, stages=[Stage(image=image) for image in images], students=students)


async def test_stages_run_in_order_in_one_directory(directory: WorkDirectory) -> None:
    runtime = ScriptedRuntime()
    result = await JobRunner(runtime, directory, slots=2).run(job("ok", "ok"))
    assert (result.reason, result.attempt, len(result.stages)) == (None, 3, 2)
    assert runtime.seen == [(0, []), (1, ["of-stage-0"])]
    assert list(directory.jobs.iterdir()) == []


async def test_there_is_a_result_before_all_is_removed_and_no_other_job_in_its_slot(directory: WorkDirectory) -> None:
    runtime = ScriptedRuntime()
    runner = JobRunner(runtime, directory, slots=1)
    runtime.may_release.clear()
    async with runner.running(job("ok")) as result:
        assert result.reason is None
        following = asyncio.create_task(runner.run(job("ok")))
        await until(lambda: len(list(directory.jobs.glob("*/job"))) == 2, "the /job of the next one")
        begun = len(runtime.seen)
        runtime.may_release.set()
    assert begun == 1, "it has begun in a slot that is not free"
    assert len(list(directory.jobs.glob("*/job/of-stage-0"))) <= 1, "the block ends when its /job is gone"
    await following
    assert runtime.seen == [(0, [])] * 2
    assert list(directory.jobs.iterdir()) == []


@pytest.mark.parametrize("times", [1, 2])
async def test_what_is_left_is_removed_also_if_nobody_wants_the_result(directory: WorkDirectory, times: int) -> None:
    runtime = ScriptedRuntime()
    runner = JobRunner(runtime, directory, slots=1)
    runtime.may_release.clear()
    entered = asyncio.Event()

    async def report() -> None:
        async with runner.running(job("ok")):
            entered.set()
            await asyncio.Event().wait()

    reporting = asyncio.create_task(report())
    await entered.wait()
    for _ in range(times):
        reporting.cancel()
        await asyncio.sleep(0)
    runtime.may_release.set()
    await asyncio.wait({reporting})
    assert reporting.cancelled()
    await until(lambda: not list(directory.jobs.iterdir()), "the removal")
    assert (await asyncio.wait_for(runner.run(job("ok")), 20)).reason is None, "the slot is free again"


async def test_a_removal_that_breaks_costs_neither_the_result_nor_the_slot(
    directory: WorkDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = ScriptedRuntime()
    runner = JobRunner(runtime, directory, slots=1)

    async def broken(slot: int) -> None:
        raise RuntimeError("out of the blue")

    monkeypatch.setattr(runtime, "release", broken)
    for _ in range(2):
        assert (await asyncio.wait_for(runner.run(job("ok")), 20)).reason is None
    assert "out of the blue" in caplog.text
    assert list(directory.jobs.iterdir()) == []


async def test_the_first_failing_stage_is_the_last_to_run(directory: WorkDirectory) -> None:
    result = await JobRunner(ScriptedRuntime(), directory, slots=2).run(job("ok", "fail", "ok"))
    assert [stage.reason for stage in result.stages] == [None, Reason.TIMEOUT]
    assert result.to_wire()["success"] is False
    assert result.to_wire()["reason"] == "timeout"


async def test_the_roster_is_there_before_the_first_stage(directory: WorkDirectory) -> None:
    runtime = ScriptedRuntime()
    students: list[object] = [{"NET_ID": "ada1", "N": 3, "LATE": True}, {"NET_ID": "é\ud800"}]
    await JobRunner(runtime, directory, slots=2).run(job("ok", students=students))
    assert runtime.seen == [(0, ["roster.json"])]
    assert runtime.roster == students


async def test_post_processing_finds_how_each_students_job_ended(directory: WorkDirectory) -> None:
    runtime = ScriptedRuntime()
    ended: list[dict[str, Any]] = [{"state": "succeeded", "score": 7.5}, {"state": "failed", "score": None}]
    given = dataclasses.replace(job("ok", students=[{"NET_ID": "ada1"}, {"NET_ID": "bob2"}]), student_jobs=ended)
    await JobRunner(runtime, directory, slots=2).run(given)
    assert runtime.seen == [(0, ["jobs.json", "roster.json"])]
    assert runtime.jobs == [
        {"student": {"NET_ID": "ada1"}, "state": "succeeded", "score": 7.5},
        {"student": {"NET_ID": "bob2"}, "state": "failed", "score": None},
    ]


async def test_an_empty_roster_is_a_roster(directory: WorkDirectory) -> None:
    runtime = ScriptedRuntime()
    await JobRunner(runtime, directory, slots=2).run(job("ok", students=[]))
    assert runtime.roster == []


async def test_a_fault_of_the_grader_fails_the_job_and_says_so(
    directory: WorkDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    moment = datetime.fromisoformat("2026-01-31T09:30:00Z")
    result = await JobRunner(ScriptedRuntime(), directory, slots=2, now=lambda: moment).run(job("crash"))
    assert result.reason is Reason.RUNTIME_ERROR
    assert "out of the blue" in str(result.stages[0].message)
    assert result.stages[0].started_at == moment
    assert "Traceback" in caplog.text
    assert list(directory.jobs.iterdir()) == []
