"""Stages that want more of /job than there is, in every runtime and with every way to bound it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broadway_grader.domain import Job, Reason, Stage
from broadway_grader.runner import JobRunner
from broadway_grader.runtimes.port import Runtime
from broadway_grader.volumes import VOLUMES, choose, mounts
from broadway_grader.volumes.port import Bound
from broadway_grader.workspace import WorkDirectory
from tests.grader.stages import sh, until

JOB_ID = "697dd0a80a1b2c3d4e5f6011"
BOUND = Bound(bytes=16 * 1024**2, files=500)


@pytest.fixture(params=list(VOLUMES))
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WorkDirectory]:
    with WorkDirectory(tmp_path / "work") as directory:
        directory.bound_jobs(choose(request.param, BOUND, directory.jobs, visible=True))
        yield directory
        assert list(directory.jobs.iterdir()) == []
    assert mounts.mounted_below(tmp_path) == []


@pytest.fixture
def runner(runtime: Runtime, directory: WorkDirectory) -> JobRunner:
    return JobRunner(runtime, directory, slots=4)


def job(*stages: Stage) -> Job:
    return Job(job_id=JOB_ID, attempt=1, stages=stages)


async def test_a_stage_that_fills_job_is_stopped_or_fails_and_is_to_blame(runner: JobRunner) -> None:
    begun = time.monotonic()
    write = "dd if=/dev/zero of=/job/$i bs=1048576 count=1"
    bomb = f"set -e; echo begun; i=0; while [ $i -lt 40 ]; do {write}; i=$((i+1)); done; sleep 90"
    result = await runner.run(job(sh(bomb, timeout=100), sh("echo never")))
    assert (result.reason, len(result.stages)) == (Reason.DISK_LIMIT, 1)
    assert result.stages[0].message == "/job is full: a job may keep 16 MiB in it"
    assert result.stages[0].stdout.text == "begun\n"
    assert time.monotonic() - begun < 60


async def test_a_stage_that_makes_files_without_end_is_to_blame(runner: JobRunner) -> None:
    bomb = "set -e; i=0; while [ $i -lt 2000 ]; do : > /job/$i; i=$((i+1)); done; sleep 90"
    result = await runner.run(job(sh(bomb, timeout=100)))
    assert result.reason is Reason.DISK_LIMIT
    assert result.stages[0].message == "/job is full: a job may keep 500 files in it"


@pytest.mark.parametrize("directory", ["watch"], indirect=True)
async def test_a_file_without_a_name_counts_as_well(runner: JobRunner) -> None:
    hidden = "exec 3> /job/file; rm /job/file; dd if=/dev/zero bs=1048576 count=40 >&3; sleep 90"
    begun = time.monotonic()
    result = await runner.run(job(sh(hidden, timeout=100)))
    assert (result.reason, time.monotonic() - begun < 60) == (Reason.DISK_LIMIT, True)


async def test_the_share_is_the_jobs_and_not_the_stages(runner: JobRunner) -> None:
    write = "dd if=/dev/zero of=/job/$(cat /proc/sys/kernel/random/uuid) bs=1048576 count=10"
    result = await runner.run(job(sh(write), sh(write)))
    assert [stage.reason for stage in result.stages] == [None, Reason.DISK_LIMIT]


async def test_jobs_do_not_share_it(runner: JobRunner) -> None:
    write = sh("dd if=/dev/zero of=/job/file bs=1048576 count=12")
    results = await asyncio.gather(*(runner.run(job(write)) for _ in range(3)))
    assert [result.reason for result in results] == [None] * 3


async def test_a_stage_that_fails_for_another_reason_keeps_it(runner: JobRunner) -> None:
    assert (await runner.run(job(sh("echo x > /job/file; exit 3")))).reason is Reason.STAGE_FAILED


async def test_whatever_a_job_left_it_is_gone(runner: JobRunner, directory: WorkDirectory) -> None:
    left = "mkfifo /job/fifo; ln -s /etc/shadow /job/link; mkdir -p /job/a/b; chmod 000 /job/a/b /job/a; exec sleep 60"
    running = asyncio.create_task(runner.run(job(sh(f"touch /job/started; {left}"))))
    await until(lambda: list(directory.jobs.glob("*/job/fifo")), "the stage to run")
    running.cancel()
    await asyncio.wait({running})
    assert list(directory.jobs.iterdir()) == []
