"""The ways to bound /job: what each holds, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broadway_grader.directories import opened
from broadway_grader.errors import SetupError
from broadway_grader.volumes import VOLUMES, choose, loop, mounts
from broadway_grader.volumes.port import Bound, Volume, Volumes
from broadway_grader.volumes.watched import WatchedVolumes
from broadway_grader.workspace import WorkDirectory
from tests.grader.stages import descriptors, until

MIB = 1024**2
BOUND = Bound(bytes=8 * MIB, files=300)
KERNELS = ("loop", "tmpfs")


@pytest.fixture(params=list(VOLUMES))
def volumes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volumes]:
    """Each way in turn, opened; afterwards nothing is mounted, and no loop device is used."""
    volumes = VOLUMES[request.param](BOUND, tmp_path)
    volumes.open()
    yield volumes
    assert list(tmp_path.iterdir()) == []
    assert mounts.mounted_below(tmp_path) == []


@pytest.fixture
def volume(volumes: Volumes, tmp_path: Path) -> Iterator[Volume]:
    volume = volumes.make(tmp_path / "volume")
    yield volume
    volume.remove()


def loop_devices(directory: Path) -> list[str]:
    """The loop devices whose files are, or were, in `directory`."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = file.read_text()
        except OSError:
            continue  # cleared since
        if backing.startswith(f"{directory}/"):
            found.append(file.parent.parent.name)
    return found


def fill(file: Path, size: int = 64 * MIB) -> int:
    """Write until there is no room, or `size`; returns how much there was."""
    written = 0
    handle = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        while written < size:
            written += os.write(handle, b"x" * 65536)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(handle)
    return written


def make_files(directory: Path, most: int) -> int:
    for made in range(most):
        try:
            (directory / f"file-{made}").touch()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return made
    return most


def test_a_volume_is_an_empty_directory_for_everybody_within_one_for_us_alone(volume: Volume) -> None:
    assert list(volume.path.iterdir()) == []
    assert stat.S_IMODE(volume.path.stat().st_mode) == 0o777
    assert stat.S_IMODE(volume.path.parent.stat().st_mode) == 0o700
    assert os.path.samestat(os.fstat(volume.descriptor), volume.path.stat())
    assert (volume.overrun(failed=False), volume.overrun(failed=True)) == (None, None)


def test_a_stage_that_wrote_too_much_is_to_blame(volumes: Volumes, volume: Volume) -> None:
    written = fill(volume.path / "file")
    if volumes.name in KERNELS:
        assert BOUND.bytes * 0.98 <= written <= BOUND.bytes * 1.02
        assert volume.overrun(failed=False) is None, "what it needed was there"
    assert volume.overrun(failed=True) == "/job is full: a job may keep 8 MiB in it"
    (volume.path / "file").unlink()
    assert volume.overrun(failed=True) is None


def test_a_stage_that_made_too_many_files_is_to_blame(volumes: Volumes, volume: Volume) -> None:
    (volume.path / "deep").mkdir()
    made = make_files(volume.path / "deep", 1000)
    if volumes.name in KERNELS:
        assert BOUND.files * 0.98 <= made < BOUND.files * 1.1
        assert volume.overrun(failed=False) is None
    assert volume.overrun(failed=True) == "/job is full: a job may keep 300 files in it"


def test_what_fits_is_nobodys_fault(volume: Volume) -> None:
    fill(volume.path / "file", 6 * MIB)
    make_files(volume.path, 200)
    with (volume.path / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)  # has no blocks
    for number in range(5):
        (volume.path / f"link-{number}").hardlink_to(volume.path / "file")
    assert volume.overrun(failed=True) is None


def leave_everything_there_is(job: Path) -> None:
    """What hostile code leaves: files of every kind and name, in a tree deeper than any path."""
    os.mkfifo(job / "fifo")
    with socket.socket(socket.AF_UNIX) as listener, opened(os.open(job, os.O_PATH)) as handle:
        listener.bind(f"/proc/self/fd/{handle}/socket")
    (job / "shadow").symlink_to("/etc/shadow")
    (job / "up").symlink_to("..")
    (job / "new\nline\\ \x1b[2J").touch()
    Path(os.fsdecode(os.fsencode(job) + b"/\xff\xfe\x80")).mkdir()
    (job / "-rf").touch()
    with (job / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)
    os.mknod(job / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (job / "closed" / "in").mkdir(parents=True)
    (job / "closed" / "in").chmod(0)
    (job / "closed").chmod(0)


def dig(job: Path, levels: int) -> None:
    at = os.open(job, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def test_whatever_is_in_a_volume_it_can_be_judged_and_removed(volumes: Volumes, tmp_path: Path) -> None:
    before = descriptors()
    volume = volumes.make(tmp_path / "volume")
    leave_everything_there_is(volume.path)
    assert volume.overrun(failed=True) is None
    volume.remove()
    assert descriptors() == before


@pytest.mark.parametrize("volumes", ["watch"], indirect=True)
def test_a_tree_too_deep_to_be_counted_is_too_much(volume: Volume) -> None:
    dig(volume.path, 300)
    assert volume.overrun(failed=False) == "/job is nested more than 200 levels deep"


@pytest.mark.parametrize("volumes", KERNELS, indirect=True)
def test_set_uid_bits_and_device_nodes_have_no_effect(volume: Volume) -> None:
    options = next(
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{volume.path.parent} " in line
    )
    assert {"nosuid", "nodev"} <= set(options.split()[5].split(","))
    os.mknod(volume.path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with pytest.raises(PermissionError):
        (volume.path / "null").read_bytes()


@pytest.mark.parametrize("volumes", KERNELS, indirect=True)
def test_a_volume_that_is_in_use_is_removed_all_the_same(volumes: Volumes, tmp_path: Path) -> None:
    """By a process that has a file of it open, and by one that has a copy of all mounts, as every sandbox has."""
    volume = volumes.make(tmp_path / "volume")
    with (volume.path / "file").open("wb") as file:
        file.write(b"x" * MIB)
        holder = subprocess.Popen(["unshare", "-m", "sleep", "60"])
        try:
            until_other_namespace(holder.pid)
            begun = time.monotonic()
            volume.remove()
            assert time.monotonic() - begun < 30, "it did not wait for the holder to end"
            assert mounts.mounted_below(tmp_path) == []
            assert list(tmp_path.iterdir()) == []
        finally:
            holder.kill()
            holder.wait()
    until_no_loop_device(tmp_path)


def until_other_namespace(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/ns/mnt").samefile("/proc/self/ns/mnt"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_no_loop_device(directory: Path) -> None:
    deadline = time.monotonic() + 30
    while found := loop_devices(directory):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def test_what_a_job_wrote_gives_its_room_back_while_its_mount_is_still_held(tmp_path: Path) -> None:
    volumes = loop.LoopVolumes(Bound(bytes=64 * MIB, files=100), tmp_path)
    volumes.open()
    volume = volumes.make(tmp_path / "volume")
    fill(volume.path / "file", 32 * MIB)
    os.sync()
    holder = subprocess.Popen(["unshare", "-m", "sleep", "60"])
    try:
        until_other_namespace(holder.pid)
        (device,) = loop_devices(tmp_path)
        backing = Path(f"/sys/block/{device}/size")
        assert int(backing.read_text()) * 512 > 64 * MIB
        kept = os.dup(volume_file(volume))
        assert os.fstat(kept).st_blocks * 512 > 16 * MIB
        volume.remove()
        assert os.fstat(kept).st_blocks == 0
        os.close(kept)
    finally:
        holder.kill()
        holder.wait()
    until_no_loop_device(tmp_path)


def volume_file(volume: Volume) -> int:
    """The descriptor of the file that a loop volume is kept in."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            target = str(link.readlink())
            if target.startswith(str(volume.path.parents[1])) and target.endswith("(deleted)"):
                return int(link.name)
    raise AssertionError("no such file is open")


_CRASHING = """
import os, signal, sys
from pathlib import Path
from broadway_grader.volumes import VOLUMES
from broadway_grader.volumes.port import Bound
from broadway_grader.workspace import WorkDirectory
directory = WorkDirectory(Path(sys.argv[1])).__enter__()
volumes = VOLUMES[sys.argv[2]](Bound(bytes=2**23, files=300), directory.jobs)
volumes.open()
for name in ("one", "two"):
    volume = volumes.make(directory.jobs / name)
    (volume.path / "file").write_bytes(b"x" * 100_000)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("way", list(VOLUMES))
@pytest.mark.parametrize("held", [False, True], ids=["", "held"])
def test_the_next_life_removes_what_a_killed_one_left(tmp_path: Path, way: str, held: bool) -> None:
    work = tmp_path / "a work\ndirectory\\"
    subprocess.run([sys.executable, "-c", _CRASHING, work, way], check=False, cwd=Path(__file__).parents[2])
    assert len(list((work / "jobs").iterdir())) == 2
    assert len(mounts.mounted_below(work)) == (2 if way in KERNELS else 0)
    holder = subprocess.Popen(["unshare", "-m", "sleep", "60"]) if held else None
    try:
        if holder is not None:
            until_other_namespace(holder.pid)
        with WorkDirectory(work) as directory:
            directory.remove_leftovers()
            assert list(directory.jobs.iterdir()) == []
            assert mounts.mounted_below(work) == []
    finally:
        if holder is not None:
            holder.kill()
            holder.wait()
    until_no_loop_device(work)


@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_the_work_directory_may_be_on_any_file_system(tmp_path: Path, kind: str) -> None:
    top = tmp_path / "top"
    for name in ("top", "lower", "upper", "inner"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/up/upper,workdir={tmp_path}/up/inner"
    (tmp_path / "up").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "up"], check=True)
    try:
        (tmp_path / "up" / "upper").mkdir()
        (tmp_path / "up" / "inner").mkdir()
        command = ["mount", "-t", kind, kind, *(["-o", options] if kind == "overlay" else []), str(top)]
        subprocess.run(command, check=True)
        try:
            volumes = choose("auto", BOUND, top, visible=True)
            assert volumes.name == "loop"
            volume = volumes.make(top / "volume")
            assert fill(volume.path / "file") < BOUND.bytes * 1.02
            volume.remove()
            assert list(top.iterdir()) == []
        finally:
            subprocess.run(["umount", top], check=True)
    finally:
        subprocess.run(["umount", tmp_path / "up"], check=True)


async def test_many_volumes_at_once(volumes: Volumes, tmp_path: Path) -> None:
    def use(number: int) -> None:
        volume = volumes.make(tmp_path / str(number))
        (volume.path / "file").write_bytes(b"x" * 1000)
        assert volume.overrun(failed=True) is None
        volume.remove()

    await asyncio.gather(*(asyncio.to_thread(use, number) for number in range(40)))


def test_auto_takes_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert choose("auto", BOUND, tmp_path, visible=True).name == "loop"
    assert choose("auto", BOUND, tmp_path, visible=False).name == "watch"
    assert "does not see what this grader mounts" in caplog.text
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert choose("auto", BOUND, tmp_path, visible=True).name == "watch"
    assert "no mke2fs on PATH" in caplog.text
    with pytest.raises(SetupError, match="no mke2fs on PATH"):
        choose("loop", BOUND, tmp_path, visible=True)
    assert list(tmp_path.iterdir()) == []


async def test_a_watch_calls_out_as_soon_as_there_is_too_much(tmp_path: Path) -> None:
    volume = WatchedVolumes(BOUND).make(tmp_path / "volume")
    calling = asyncio.create_task(volume.overflow())
    await asyncio.sleep(0)
    fill(volume.path / "file", 4 * MIB)
    assert not calling.done()
    fill(volume.path / "file-2", 8 * MIB)
    await until(calling.done, "the watch to notice")
    assert "8 MiB" in calling.result()
    volume.remove()
