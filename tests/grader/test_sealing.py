"""Whatever stands at /job/results.json: it is gone before a trusted stage, and nothing but a file is read after it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broadway_grader import sealing
from broadway_grader.clock import utc_now
from broadway_grader.domain import Reason, Stage, StageResult
from broadway_grader.ending import Ending
from broadway_grader.errors import InvalidResults
from broadway_grader.runtimes.port import OnOutput, Place, nobody
from broadway_grader.sealing import RESULTS, clear, run_sealed, take

FORGED = b'{"score": 100}'
GOOD = {"score": 7, "max_score": 10, "tests": []}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job"
    path.mkdir()
    (tmp_path / "host").write_bytes(FORGED)
    return path


def directory_of_files(at: Path) -> None:
    (at / "deep" / "deeper").mkdir(parents=True)
    for number in range(500):
        (at / f"file-{number}").touch()
    (at / "link").symlink_to("/etc")
    (at / "deep").chmod(0)
    at.chmod(0)


def listening(at: Path) -> None:
    os.chdir(at.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(at.name)


PLANTED: dict[str, Callable[[Path], object]] = {
    "nothing": lambda at: None,
    "file": lambda at: at.write_bytes(FORGED),
    "link": lambda at: at.symlink_to(at.parent.parent / "host"),
    "dangling link": lambda at: at.symlink_to("nowhere"),
    "link to itself": lambda at: at.symlink_to(at.name),
    "fifo": os.mkfifo,
    "socket": listening,
    "device": lambda at: os.mknod(at, 0o020666, os.makedev(1, 5)),  # /dev/zero
    "directory": directory_of_files,
    "hard link": lambda at: os.link(_write(at.with_name("prepared"), FORGED), at),
    "sparse giant": lambda at: os.truncate(_write(at, FORGED), 2**40),
}


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture(params=PLANTED)
def planted(request: pytest.FixtureRequest, job: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(job)
    PLANTED[request.param](job / RESULTS)
    yield request.param
    clear(job)


def test_whatever_stands_there_is_removed(job: Path, planted: str) -> None:
    clear(job)
    assert not os.path.lexists(job / RESULTS)
    assert (job.parent / "host").read_bytes() == FORGED
    clear(job)


@pytest.mark.parametrize("planted", sorted(set(PLANTED) - {"file"}), indirect=True)
def test_nothing_but_a_file_is_read(job: Path, planted: str) -> None:
    with pytest.raises(InvalidResults) as caught:
        take(job, 1024)
    (fault,) = caught.value.faults
    assert fault.path == "$"
    assert {
        "nothing": "there is no /job/results.json",
        "link": "symbolic link",
        "dangling link": "symbolic link",
        "link to itself": "symbolic link",
        "directory": "no regular file",
        "hard link": "2 names",
        "sparse giant": "larger than 1024 bytes",
    }.get(planted, "no regular file") in fault.message


def test_the_bound_holds_for_a_file_that_grows_while_it_is_read(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(job / RESULTS, b" " * 1000)
    read, taken = os.read, 0

    def growing(file: int, size: int) -> bytes:
        nonlocal taken
        with path.open("ab") as more:
            more.write(b" " * 100_000)
        content = read(file, size)
        taken += len(content)
        return content

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(InvalidResults, match="larger than 1024 bytes"):
        take(job, 1024)
    assert taken == 1025


def test_a_file_of_just_the_size_is_read(job: Path) -> None:
    content = json.dumps(GOOD).encode()
    _write(job / RESULTS, content)
    assert take(job, len(content)) == GOOD
    with pytest.raises(InvalidResults, match="larger"):
        take(job, len(content) - 1)


def test_a_name_that_is_swapped_all_the_time_gives_a_fault_or_the_file_and_never_the_links_target(job: Path) -> None:
    (job.parent / "host").write_bytes(b'{"score": 100, "output": "of the host"}')
    ended = threading.Event()

    def swap() -> None:
        link, file = job / "link", job / "file"
        while not ended.is_set():
            link.symlink_to(job.parent / "host")
            link.rename(job / RESULTS)
            file.write_bytes(b'{"score": 1}')
            file.rename(job / RESULTS)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    try:
        for _ in range(2_000):
            try:
                seen.add(take(job, 1024)["score"])
            except InvalidResults as error:
                seen.add(error.faults[0].message)
    finally:
        ended.set()
        swapping.join()
    assert 1 in seen
    assert 100 not in seen


class Scripted:
    """A runtime whose one stage does `what` to /job and ends with `reason`."""

    name = "scripted"

    def __init__(self, what: Callable[[Path], object], reason: Reason | None = None) -> None:
        self.what, self.reason, self.ran = what, reason, False

    async def run_stage(
        self,
        stage: Stage,
        place: Place,
        ending: Ending | None = None,
        on_output: OnOutput = nobody,
        *,
        following: Stage | None = None,
    ) -> StageResult:
        self.ran = True
        self.what(place.directory / RESULTS)
        return StageResult(started_at=utc_now(), finished_at=utc_now(), runtime=self.name, reason=self.reason)


async def seal(job: Path, runtime: Any) -> StageResult:
    place = Place(job_id="j", attempt=1, stage=1, slot=0, directory=job)
    return await run_sealed(runtime, Stage(image="i", results=True), place, max_bytes=1024, now=utc_now)


async def test_a_forged_file_is_never_taken_for_the_stages_own(job: Path, planted: str) -> None:
    silent = await seal(job, Scripted(lambda at: None))
    assert (silent.reason, silent.results) == (Reason.STAGE_FAILED, None)
    assert silent.message == "no valid /job/results.json: there is no /job/results.json"
    assert silent.results_errors == [{"path": "$", "message": "there is no /job/results.json"}]


async def test_results_come_with_the_stage_that_wrote_them(job: Path, planted: str) -> None:
    result = await seal(job, Scripted(lambda at: at.write_text(json.dumps(GOOD))))
    assert (result.reason, result.results, result.results_errors) == (None, GOOD, None)
    assert result.to_wire()["results"] == GOOD


async def test_a_failed_stage_keeps_its_reason_and_its_results(job: Path) -> None:
    result = await seal(job, Scripted(lambda at: at.write_text(json.dumps(GOOD)), Reason.TIMEOUT))
    assert (result.reason, result.results) == (Reason.TIMEOUT, GOOD)
    result = await seal(job, Scripted(lambda at: at.write_text("{"), Reason.TIMEOUT))
    assert (result.reason, result.results, bool(result.results_errors)) == (Reason.TIMEOUT, None, True)


async def test_a_stage_that_the_fleet_failed_has_no_results(job: Path) -> None:
    result = await seal(job, Scripted(lambda at: at.write_text(json.dumps(GOOD)), Reason.RUNTIME_ERROR))
    assert (result.reason, result.results, result.results_errors) == (Reason.RUNTIME_ERROR, None, None)


@pytest.mark.parametrize(("fault", "reason"), [(errno.EPERM, Reason.STAGE_FAILED), (errno.EIO, Reason.RUNTIME_ERROR)])
async def test_a_stage_whose_results_cannot_be_sealed_does_not_run(
    job: Path, monkeypatch: pytest.MonkeyPatch, fault: int, reason: Reason
) -> None:
    def immutable(*_: object, **__: object) -> None:
        raise OSError(fault, os.strerror(fault))

    _write(job / RESULTS, FORGED)
    monkeypatch.setattr(os, "unlink", immutable)
    runtime = Scripted(lambda at: None)
    result = await seal(job, runtime)
    assert not runtime.ran
    assert result.reason is reason
    assert "cannot be removed" in str(result.message)
    assert result.results is None


def test_what_was_made_immutable_is_removed(job: Path) -> None:
    subprocess.run(["chattr", "+i", _write(job / RESULTS, FORGED)], check=True)
    clear(job)
    assert not os.path.lexists(job / RESULTS)


async def test_a_cancelled_job_waits_for_the_removal_under_way(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(_: Path) -> None:
        begun.set()
        go_on.wait(30)
        ended.set()

    monkeypatch.setattr(sealing, "clear", slow)
    runtime = Scripted(lambda at: None)
    task = asyncio.create_task(seal(job, runtime))
    await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert not runtime.ran
