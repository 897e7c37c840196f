"""Results on disk: what is kept, what is set aside, and what a disk that fails may cost."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from broadway_grader.domain import JobResult, Output, Reason, StageResult
from broadway_grader.spool import KEPT_REFUSED, Spool, SpooledResult
from broadway_grader.worker_ids import REMEMBERED_IDS, WorkerIds

WORKER = "697dd0a80a1b2c3d4e5f6099"
JOB = "697dd0a80a1b2c3d4e5f6011"
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)

PLAIN = StageResult(started_at=NOW, finished_at=NOW, runtime="sandbox", exit_code=0)
FULL = StageResult(
    started_at=NOW,
    finished_at=NOW + timedelta(seconds=1.5),
    runtime="docker",
    exit_code=None,
    reason=Reason.OUT_OF_MEMORY,
    message="it wanted more",
    stdout=Output(text="\0é✓\ud800", truncated=True),
    stderr=Output(text="{"),
    memory_peak_bytes=7,
    cpu_seconds=0.25,
    image="i",
    image_digest="sha256:0",
    image_ignored=True,
    results={"score": 1.5, "max_score": None, "tests": []},
    results_errors=[{"path": "$", "message": "é"}],
)


def spooled(job_id: str = JOB, attempt: int = 1) -> SpooledResult:
    return SpooledResult(worker_id=WORKER, result=JobResult(job_id=job_id, attempt=attempt, stages=[PLAIN, FULL]))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    numbers = count()
    spool = Spool(tmp_path / "spool", now=lambda: NOW + timedelta(seconds=next(numbers)))
    spool.open()
    return spool


def files(spool: Spool) -> list[str]:
    return sorted(path.name for path in spool.path.iterdir() if path != spool.refused)


def refused(spool: Spool) -> list[str]:
    """The names under which things were set aside, oldest first, without their times."""
    return [name.split("-", 1)[1] for name in sorted(os.listdir(spool.refused))]  # noqa: PTH208


def test_a_result_comes_back_as_it_was_kept(spool: Spool) -> None:
    spool.put(spooled())
    assert spool.load() == [spooled()]
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((spool.path / f"{JOB}-1.json").stat().st_mode) == 0o600


def test_a_result_is_kept_once_for_each_claim(spool: Spool) -> None:
    moved = dataclasses.replace(spooled(), worker_id="b" * 24)
    for result in (spooled(), moved, spooled(attempt=2)):
        spool.put(result)
    assert spool.load() == [moved, spooled(attempt=2)]


def test_an_accepted_result_is_gone_and_may_be_accepted_twice(spool: Spool) -> None:
    spool.put(spooled())
    for _ in range(2):
        spool.remove(spooled().result)
    assert files(spool) == []


def test_a_refused_result_is_set_aside_whole(spool: Spool) -> None:
    spool.put(spooled())
    for _ in range(2):
        spool.refuse(spooled().result)
    assert files(spool) == []
    (kept,) = spool.refused.iterdir()
    assert json.loads(kept.read_text())["job_id"] == JOB


def test_only_the_newest_of_what_is_refused_is_kept(spool: Spool) -> None:
    (spool.path / "a directory").mkdir()
    (spool.path / "a directory" / "with something in it").touch()
    spool.load()
    for attempt in range(KEPT_REFUSED + 3):
        spool.put(spooled(attempt=attempt))
        spool.refuse(spooled(attempt=attempt).result)
    assert refused(spool) == [f"{JOB}-{attempt}.json" for attempt in range(3, KEPT_REFUSED + 3)]


def test_the_results_of_one_worker_are_voided(spool: Spool) -> None:
    other = dataclasses.replace(spooled(attempt=2), worker_id="b" * 24)
    spool.put(spooled())
    spool.put(other)
    spool.void(WORKER)
    assert spool.load() == [other]
    assert refused(spool) == [f"{JOB}-1.json"]


def whole() -> dict[str, object]:
    return {"worker_id": WORKER, "job_id": JOB, "result": spooled().result.to_wire()}


STRANGERS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "cut short": lambda path: path.write_text(json.dumps(whole())[:-7]),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a list": lambda path: path.write_text("[]"),
    "no worker": lambda path: path.write_text(json.dumps({**whole(), "worker_id": "../x"})),
    "no job": lambda path: path.write_text(json.dumps({**whole(), "job_id": "../x"})),
    "another's": lambda path: path.write_text(json.dumps({**whole(), "job_id": "b" * 24})),
    "no result": lambda path: path.write_text(json.dumps({**whole(), "result": []})),
    "no attempt": lambda path: path.write_text(json.dumps({**whole(), "result": {"info": []}})),
    "no stages": lambda path: path.write_text(json.dumps({**whole(), "result": {"attempt": 1, "info": [7]}})),
    "no times": lambda path: path.write_text(
        json.dumps({**whole(), "result": {"attempt": 1, "info": [{**PLAIN.to_wire(), "started_at": "soon"}]}})
    ),
    "a link": lambda path: path.symlink_to("/etc/passwd"),
    "a fifo": lambda path: os.mkfifo(path),
    "a directory": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_is_no_result_is_set_aside_and_hides_none(spool: Spool, stranger: str) -> None:
    STRANGERS[stranger](spool.path / f"{JOB}-1.json")
    spool.put(spooled(attempt=2))
    assert spool.load() == [spooled(attempt=2)]
    assert refused(spool) == [f"{JOB}-1.json"]


def test_a_name_of_any_length_can_be_set_aside(spool: Spool) -> None:
    (spool.path / ("x" * 255)).touch()
    assert spool.load() == []
    assert refused(spool) == ["x" * 100]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow: the one kind of full disk that needs no root."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_leaves_what_was_there(spool: Spool) -> None:
    spool.put(spooled())
    moved = dataclasses.replace(spooled(), worker_id="b" * 24)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        spool.put(moved)
    assert files(spool) == [f"{JOB}-1.json"], "no half of a file"
    assert spool.load() == [spooled()]


def test_worker_ids_outlive_the_process(tmp_path: Path) -> None:
    ids = WorkerIds(tmp_path / "workers")
    assert ids.load() == ()
    for worker_id in ("a", "b", "c"):
        ids.add(worker_id)
    ids.discard("b")
    ids.discard("unknown")
    assert WorkerIds(tmp_path / "workers").load() == ("a", "c")


def test_what_an_earlier_life_remembered_is_kept_until_it_is_discarded(tmp_path: Path) -> None:
    for life in ("a", "b"):
        ids = WorkerIds(tmp_path / "workers")
        ids.load()
        ids.add(life)
    assert WorkerIds(tmp_path / "workers").load() == ("a", "b")


def test_a_spoilt_file_of_worker_ids_costs_only_what_is_spoilt(tmp_path: Path) -> None:
    (tmp_path / "workers").write_bytes(b"aa\n\xff\xfe\n../b\n\x00\n\ncc\n")
    assert WorkerIds(tmp_path / "workers").load() == ("aa", "cc")
    (tmp_path / "directory").mkdir()
    ids = WorkerIds(tmp_path / "directory")
    assert ids.load() == ()
    ids.add("a")  # cannot be written, which is logged


def test_a_bounded_number_of_worker_ids_is_remembered(tmp_path: Path) -> None:
    ids = WorkerIds(tmp_path / "workers")
    for number in range(REMEMBERED_IDS + 2):
        ids.add(str(number))
    assert ids.load() == tuple(str(number) for number in range(2, REMEMBERED_IDS + 2))
