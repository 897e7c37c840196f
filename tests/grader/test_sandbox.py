"""What only the sandbox promises."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from broadway_grader.domain import Reason, Stage
from broadway_grader.errors import SetupError
from broadway_grader.removal import remove_tree
from broadway_grader.runtimes import bubblewrap, sandbox
from broadway_grader.runtimes.port import Place, Settings
from broadway_grader.runtimes.sandbox import SandboxRuntime
from broadway_grader.runtimes.users import DEFAULT_USERS
from tests.grader.conftest import LIMITS
from tests.grader.identity import USER, as_user
from tests.grader.stages import IMAGE, processes, sh, until

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what a grader does that is root")


@pytest_asyncio.fixture
async def runtime(settings: Settings) -> AsyncIterator[SandboxRuntime]:
    runtime = SandboxRuntime(settings)
    await runtime.open()
    yield runtime
    await runtime.close()


async def test_the_result_says_that_the_image_was_ignored(runtime: SandboxRuntime, place: Place) -> None:
    result = await runtime.run_stage(sh("true"), place)
    assert (result.image, result.image_ignored, result.image_digest) == (IMAGE, True, None)
    assert result.to_wire()["image_ignored"] is True


async def test_without_an_entry_point_there_is_nothing_to_run(runtime: SandboxRuntime, place: Place) -> None:
    result = await runtime.run_stage(Stage(image=IMAGE), place)
    assert result.reason is Reason.STAGE_FAILED
    assert "entry_point" in str(result.message)


async def test_only_usr_and_a_few_harmless_files_of_the_host_are_there(runtime: SandboxRuntime, place: Place) -> None:
    result = await runtime.run_stage(sh("ls /; echo --; ls /etc; ls /home /root /var /run /sys /boot /srv"), place)
    top, etc = (set(part.split()) for part in result.stdout.text.split("--"))
    assert top <= {"bin", "dev", "etc", "job", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr"}
    assert etc <= {"alternatives", "group", "hosts", "ld.so.cache", "passwd"}
    devices = await runtime.run_stage(sh("ls /dev"), place)
    assert not {"sda", "vda", "mem", "kmsg", "disk"} & set(devices.stdout.text.split())


@pytest.mark.parametrize("path", ["/file", "/usr/file", "/etc/file", "/dev/file", "/usr/bin/sh"])
async def test_nothing_but_job_and_tmp_can_be_written(runtime: SandboxRuntime, place: Place, path: str) -> None:
    result = await runtime.run_stage(sh(f"echo x > {path}"), place)
    assert result.reason is Reason.STAGE_FAILED


async def test_the_next_life_ends_the_sandboxes_of_this_grader_and_no_others(
    runtime: SandboxRuntime, settings: Settings, place: Place
) -> None:
    stage = asyncio.create_task(runtime.run_stage(sh("sleep 79.5"), place))
    await until(lambda: processes("sleep 79.5"), "the stage to run")
    somebody_else = SandboxRuntime(dataclasses.replace(settings, instance="somebody-else"))
    await somebody_else.remove_leftovers()
    assert not stage.done()
    await SandboxRuntime(settings).remove_leftovers()
    assert processes("sleep 79.5") == []
    assert (await stage).reason is not None


def test_also_the_sandboxes_of_ordinary_users_carry_the_mark_of_their_grader() -> None:
    program = bubblewrap.Program(executable=Path("/usr/bin/bwrap"))
    assert "a-mark" in bubblewrap.command(program, 3, ["true"], mark="a-mark")


async def test_tmp_is_bounded(runtime: SandboxRuntime, place: Place) -> None:
    for directory in ("/tmp", "/dev/shm"):
        result = await runtime.run_stage(sh(f"head -c {LIMITS.tmp + 10**6} /dev/zero > {directory}/big"), place)
        assert result.reason is Reason.STAGE_FAILED, directory


async def test_a_stage_cannot_make_namespaces_of_its_own(runtime: SandboxRuntime, place: Place) -> None:
    assert (await runtime.run_stage(sh("unshare --user true"), place)).reason is Reason.STAGE_FAILED


async def test_a_stage_inherits_no_descriptor(runtime: SandboxRuntime, place: Place) -> None:
    result = await runtime.run_stage(sh("ls /proc/$$/fd"), place)
    assert result.stdout.text.split() == ["0", "1", "2"]


async def test_python_works(runtime: SandboxRuntime, place: Place) -> None:
    stage = Stage(
        image=IMAGE, entry_point=["python3", "-c", "import json, ssl, pwd, os; print(pwd.getpwuid(os.getuid())[0])"]
    )
    assert (await runtime.run_stage(stage, place)).stdout.text == "stage\n"


async def test_the_result_says_what_the_stage_used(runtime: SandboxRuntime, place: Place) -> None:
    burn = "import time\nkept = bytearray(40_000_000)\nwhile time.process_time() < 0.3: pass"
    result = await runtime.run_stage(Stage(image=IMAGE, entry_point=["python3", "-c", burn]), place)
    assert result.cpu_seconds is not None
    assert 0.3 <= result.cpu_seconds < 5, "of the stage, not of the grader"
    assert result.memory_peak_bytes is not None
    assert 40_000_000 < result.memory_peak_bytes < 80_000_000


async def test_a_working_directory_missing_in_job_is_the_stages_fault(runtime: SandboxRuntime, place: Place) -> None:
    result = await runtime.run_stage(sh("pwd", working_dir="/job/missing"), place)
    assert (result.exit_code, result.reason) == (125, Reason.STAGE_FAILED)


async def test_a_link_in_job_does_not_lead_the_runtime_out(
    runtime: SandboxRuntime, place: Place, tmp_path: Path
) -> None:
    (place.directory / "link").symlink_to(tmp_path)
    await runtime.run_stage(sh("pwd", working_dir="/job/link/made"), place)
    assert not (tmp_path / "made").exists()


@as_root
async def test_under_a_root_grader_no_process_of_a_stage_is_root(runtime: SandboxRuntime, place: Place) -> None:
    marker, host = f"25{uuid.uuid4().int % 10**9}", DEFAULT_USERS[place.slot]
    running = asyncio.create_task(runtime.run_stage(sh(f"touch /job/started; sleep {marker}", user="0"), place))
    await until((place.directory / "started").exists, "the stage to start")
    assert (place.directory / "started").stat().st_uid == host
    await until(lambda: owners(f"sleep {marker}", "sleep"), "the stage's sleep")
    users = owners(f"sleep {marker}", "sleep")
    running.cancel()
    await asyncio.wait({running})
    assert users == {host}


#: Without end; `mount` and `umount` would need a thousand times as long. It is the removal of the directory that takes
#: a mount out of all other namespaces, too, a sandbox's that is being made among them.
MOUNTING = """
import ctypes, os, sys
libc, paths = ctypes.CDLL(None), [os.fsencode(f"{sys.argv[1]}/{number}") for number in range(20)]
while True:
    for path in paths:
        os.mkdir(path)
        libc.mount(b"tmpfs", path, b"tmpfs", 0, None)
    for path in paths:
        libc.umount2(path, 2)
        os.rmdir(path)
"""


@pytest.fixture
def mounts_that_come_and_go(tmp_path: Path) -> Iterator[None]:
    """Elsewhere on the machine; each job of a root grader has one, and an engine has many."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mounting = subprocess.Popen([sys.executable, "-c", MOUNTING, elsewhere])
    yield
    mounting.kill()
    mounting.wait()
    for left in elsewhere.iterdir():
        subprocess.run(["umount", "-l", left], check=False)


@as_root
@pytest.mark.usefixtures("mounts_that_come_and_go")
async def test_the_mounts_of_others_are_no_matter(runtime: SandboxRuntime, place: Place) -> None:
    for _ in range(40):
        result = await runtime.run_stage(sh("true"), place)
        assert result.reason is None, result.message


def owners(marker: str, program: str) -> set[int]:
    """The users of the processes of that program."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if words.startswith(program) and marker in words:
                found.add(path.stat().st_uid)
        except OSError:
            continue  # it has ended since
    return found


async def test_no_zombie_is_left(runtime: SandboxRuntime, place: Place) -> None:
    before = children().count("bwrap")  # of another test that broke its sandbox
    for stage in (sh("true"), sh("sleep 60", timeout=0.2), sh("(sleep 60 &); exit 1")):
        await runtime.run_stage(stage, place)
    assert children().count("bwrap") == before


def children() -> list[str]:
    """The programs of this process's children, dead ones that nobody has reaped included."""
    numbers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [Path(f"/proc/{number}/comm").read_text().strip() for number in numbers]


LIFE = """
import asyncio, sys
from pathlib import Path
from broadway_grader.runtimes.port import Limits, Place, Settings
from broadway_grader.runtimes.sandbox import SandboxRuntime
from broadway_grader.domain import Stage

async def live(directory, marker):
    limits = Limits(memory=2**28, cpus=1, pids=50, log_bytes=1000)
    runtime = SandboxRuntime(Settings(limits=limits, slots=1, instance="life", work_dir=Path(directory)))
    await runtime.open()
    stage = Stage(image="", entry_point=["sh", "-c", f"(setsid sleep {marker} &) ; touch /job/started; sleep {marker}"])
    result = await runtime.run_stage(stage, Place(job_id="1", attempt=1, stage=0, slot=0, directory=Path(directory)))
    print(result.reason)

asyncio.run(live(*sys.argv[1:]))
"""


async def test_a_grader_that_is_killed_takes_its_stages_with_it(place: Place) -> None:
    marker = f"24{uuid.uuid4().int % 10**9}"
    life = await asyncio.create_subprocess_exec(sys.executable, "-c", LIFE, str(place.directory), marker, cwd=ROOT)
    await until((place.directory / "started").exists, "the stage to start")
    assert processes(f"sleep {marker}") != []
    life.kill()
    await life.wait()
    await until(lambda: processes(f"sleep {marker}") == [], "the stage to end")


@pytest.mark.parametrize("moment", ["subprocess.Popen.__init__", "process.Report._take"])
async def test_a_grader_that_is_killed_while_a_sandbox_is_being_made_runs_no_stage(
    place: Place, settings: Settings, moment: str
) -> None:
    """Right after bwrap was started, and when it has reported. What it leaves may wait for ever, but for nothing."""
    dying = f"""await runtime.open()
    import os, subprocess
    from broadway_grader.runtimes import process
    real = {moment}
    def die(*arguments, **named):
        if {moment == "subprocess.Popen.__init__"}:
            real(*arguments, **named)
        os.kill(os.getpid(), 9)
    {moment} = die
    """
    life = LIFE.replace("await runtime.open()", dying).replace('"life"', f'"{settings.instance}"')
    marker = f"22{uuid.uuid4().int % 10**9}"
    died = await asyncio.create_subprocess_exec(sys.executable, "-c", life, str(place.directory), marker, cwd=ROOT)
    assert await died.wait() == -signal.SIGKILL
    for _ in range(20):
        await asyncio.sleep(0.05)
        assert not (place.directory / "started").exists(), "a stage of nobody's"
    await SandboxRuntime(settings).remove_leftovers()
    assert processes(settings.instance) == []
    assert not (place.directory / "started").exists()


@as_root
async def test_a_grader_below_a_directory_that_only_root_may_enter_works(
    runtime: SandboxRuntime, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    job = closed / "job"
    job.mkdir(parents=True)
    job.chmod(0o777)
    closed.chmod(0o700)
    result = await runtime.run_stage(
        sh("echo x > /job/file"), Place(job_id="1", attempt=1, stage=0, slot=0, directory=job)
    )
    assert result.reason is None, result.message


@as_root
def test_an_ordinary_user_needs_nothing_more(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a fork of ours that becomes that user, with a copy of bwrap: ours may be where only root can reach it."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory.is_relative_to(tempfile.gettempdir()):
            directory.chmod(directory.stat().st_mode | 0o011)
    program = next(bubblewrap.programs())
    packages = (program.executable.parents[1], *(library.parent for library in program.libraries[:1]))
    for package in packages if program.libraries else ():
        shutil.copytree(package, tmp_path / package.name)
        (tmp_path / package.name).chmod(0o755)
    if program.libraries:
        executable = tmp_path / program.executable.relative_to(program.executable.parents[2])
        program = bubblewrap.Program(executable=executable, libraries=program.libraries)
    monkeypatch.setattr(bubblewrap, "programs", lambda: iter((program,)))
    job = tmp_path / "job"
    job.mkdir()
    os.chown(job, USER, USER)

    async def run() -> str:
        runtime = SandboxRuntime(settings)
        await runtime.open()
        stage = sh("id -u; touch /job/mine; mkdir -p /job/a/b; chmod 000 /job/a/b /job/a")
        result = await runtime.run_stage(stage, Place(job_id="1", attempt=1, stage=0, slot=0, directory=job))
        owner = (job / "mine").stat().st_uid
        await asyncio.to_thread(remove_tree, job / "a")
        return f"{result.reason} {result.stdout.text.strip()} {owner} {[path.name for path in job.iterdir()]}"

    assert as_user(lambda: asyncio.run(run())) == f"None {bubblewrap.STAGE_USER} {USER} ['mine']"


async def test_a_machine_without_bubblewrap_gets_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "programs", lambda: iter(()))
    runtime = SandboxRuntime(settings)
    with pytest.raises(SetupError, match="no bwrap on PATH"):
        await runtime.open()
    await runtime.close()


async def test_a_kernel_that_forbids_it_gets_one_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "programs", lambda: iter((bubblewrap.Program(executable=refusing),)))
    monkeypatch.setattr(sandbox, "_SETTINGS", (("kernel/osrelease", os.uname().release),))
    runtime = SandboxRuntime(settings)
    with pytest.raises(SetupError) as caught:
        await runtime.open()
    await runtime.close()
    assert "No permissions to create new namespace" in str(caught.value)
    assert "see sysctl kernel.osrelease" in str(caught.value)
    assert "\n" not in str(caught.value)
