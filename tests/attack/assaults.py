"""Assaults on real runtimes, put together by `grader.py` itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grader
from broadway_grader.attacks import CATALOGUE
from broadway_grader.attacks.assault import Assault
from broadway_grader.attacks.attack import Attack
from broadway_grader.workspace import WorkDirectory
from config import GraderConfig

SLOTS = 8
#: What the tests grade with: as a grader comes, but with the images of this machine, and disks that are soon full.
OPTIONS = {
    "token": "the-token-of-a-grader",
    "slots": SLOTS,
    "self_test_image": "broadway-busybox:latest",
    "self_test_python_image": "broadway-python:latest",
    "job_disk": "64m",
    "job_files": 2000,
    "stage_disk": "128m",
}


def named(name: str) -> Attack:
    """The attack of that name."""
    (attack,) = (attack for attack in CATALOGUE if attack.name == name)
    return attack


@contextlib.asynccontextmanager
async def assault_on(runtime: str, directory: Path, **options: object) -> AsyncIterator[Assault]:
    """An assault on a grader's runtime, with a work directory of its own."""
    config = GraderConfig(**{**OPTIONS, "runtime": runtime, "work_dir": str(directory), **options})  # type: ignore[arg-type]
    with WorkDirectory(directory) as work:
        async with grader.opened(config, work) as (opened, runner):
            yield grader.assault(config, work, opened, runner)
