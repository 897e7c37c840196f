"""What a real container may not do, tried from within; what it was asked for is in tests/unit/test_confinement.py."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from broadway_grader.domain import Reason, Stage, StageResult
from broadway_grader.errors import SetupError
from broadway_grader.runtimes.confinement import container_request
from broadway_grader.runtimes.docker import DockerRuntime
from broadway_grader.runtimes.hosts import write_hosts
from broadway_grader.runtimes.port import Place, Settings
from broadway_grader.runtimes.users import DEFAULT_USERS
from tests.grader.conftest import containers
from tests.grader.stages import at, sh, until

#: A runtime of this engine that is not its default one, though it does the same.
OTHER_RUNTIME = "io.containerd.runc.v2"


@pytest.fixture
def runtime_name() -> str:
    return "docker"


async def said(runtime: DockerRuntime, place: Place, script: str, **options: Any) -> str:
    """What a script prints, which must succeed."""
    result = await runtime.run_stage(sh(script, **options), place)
    assert result.reason is None, f"{result.message}: {result.stderr.text}"
    return result.stdout.text.strip()


async def with_settings(settings: Settings, stage: Stage, place: Place) -> StageResult:
    runtime = DockerRuntime(settings)
    await runtime.open()
    try:
        return await runtime.run_stage(stage, place)
    finally:
        await runtime.close()


async def test_system_calls_are_filtered(runtime: DockerRuntime, place: Place) -> None:
    """2: by a filter, which is the engine's profile. What it forbids fails whatever the user."""
    assert await said(runtime, place, "grep ^Seccomp: /proc/self/status", user="0") == "Seccomp:\t2"
    result = await runtime.run_stage(sh("unshare -U true", user="0"), place)
    assert "Operation not permitted" in result.stderr.text


@pytest.mark.parametrize("user", [None, "0"])
async def test_neither_the_slots_user_nor_root_has_capabilities_or_can_gain_them(
    runtime: DockerRuntime, place: Place, user: str | None
) -> None:
    shown = await said(runtime, place, "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status", user=user)
    status = dict(line.split(":\t") for line in shown.splitlines())
    assert status.pop("NoNewPrivs") == "1"
    assert set(status.values()) == {"0" * 16}


async def test_there_are_no_devices_but_those_of_every_container(runtime: DockerRuntime, place: Place) -> None:
    devices = set((await said(runtime, place, "ls /dev")).split())
    assert devices <= {
        *("core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"),
        *("urandom", "zero"),
    }
    result = await runtime.run_stage(sh("mknod /tmp/disk b 254 0", user="0"), place)
    assert result.reason is Reason.STAGE_FAILED


async def test_no_namespace_is_the_hosts(runtime: DockerRuntime, place: Place) -> None:
    """But that of users, where the engine is not set up otherwise; then root in a container is the host's, unarmed."""
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    links = await said(runtime, place, f"for n in {' '.join(names)}; do readlink /proc/self/ns/$n; done")
    ours = {os.readlink(f"/proc/self/ns/{name}") for name in names}  # noqa: PTH115 - no file
    assert [theirs for theirs in links.splitlines() if theirs in ours] == []


async def test_the_kernels_own_files_are_masked_or_cannot_be_written(runtime: DockerRuntime, place: Place) -> None:
    masked = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/acpi", "/sys/firmware")
    script = "; ".join(f"cat {path} 2>/dev/null | head -c 1; ls -A {path} | grep -v {path}" for path in masked)
    assert (await runtime.run_stage(sh(f"{script}; true", user="0"), place)).stdout.text == ""
    for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper"):
        result = await runtime.run_stage(sh(f"echo x > {path}", user="0"), place)
        assert result.reason is Reason.STAGE_FAILED, path


async def test_the_engines_socket_is_nowhere(runtime: DockerRuntime, place: Place) -> None:
    found = await said(runtime, place, "find / -xdev -name '*.sock' 2>/dev/null; grep -c ' /job ' /proc/mounts; true")
    assert found == "1"
    mounts = (await said(runtime, place, "cut -d' ' -f2 /proc/mounts")).split()
    assert {mount for mount in mounts if not mount.startswith(("/proc", "/sys", "/dev"))} == {
        *("/", "/job", "/tmp"),
        *("/etc/hostname", "/etc/hosts", "/sbin/docker-init"),
    }


async def test_limits_of_processes_are_set(runtime: DockerRuntime, place: Place, settings: Settings) -> None:
    assert await said(runtime, place, "ulimit -n; ulimit -Hn; ulimit -c; ulimit -f") == (
        f"4096\n4096\n0\n{settings.limits.disk // 512}"
    )
    processes = await said(runtime, place, "cat /proc/1/comm")
    assert processes == "docker-init"


async def test_neither_tmp_nor_shm_holds_more_than_it_may(settings: Settings, place: Place) -> None:
    settings = dataclasses.replace(settings, limits=dataclasses.replace(settings.limits, tmp=2 * 1024**2))
    for directory in ("/tmp", "/dev/shm"):
        script = f"head -c 1500000 /dev/zero > {directory}/a && echo fits; head -c 1500000 /dev/zero > {directory}/b"
        result = await with_settings(settings, sh(script), place)
        assert (result.stdout.text, result.reason) == ("fits\n", Reason.STAGE_FAILED), directory


async def test_a_program_in_tmp_can_be_run_but_gives_nobody_else_its_owner(
    runtime: DockerRuntime, place: Place
) -> None:
    assert await said(runtime, place, "cp /bin/busybox /tmp/echo; /tmp/echo runs; grep ' /tmp ' /proc/mounts") != ""
    assert "nosuid" in await said(runtime, place, "grep ' /tmp ' /proc/mounts")


async def test_a_stage_is_its_slots_user_and_all_stages_of_a_job_are_the_same(
    runtime: DockerRuntime, place: Place
) -> None:
    user = DEFAULT_USERS[place.slot]
    first = await said(runtime, at(place, 0), "id -u; id -g; id -G; echo $HOME; umask 077; echo mine > /job/private")
    assert first.splitlines() == [*[str(user)] * 3, "/tmp"]
    assert await said(runtime, at(place, 1), "cat /job/private; echo more >> /job/private; touch $HOME/x") == "mine"
    assert (place.directory / "private").stat().st_uid == user
    other = await runtime.run_stage(sh("cat /job/private", user="4711:4711"), place)
    assert "Permission denied" in other.stderr.text
    slot = dataclasses.replace(place, slot=3)
    assert await said(runtime, slot, "id -u") == str(DEFAULT_USERS[3])


async def test_a_stage_may_still_ask_for_root_unless_the_operator_forbids_it(
    runtime: DockerRuntime, settings: Settings, place: Place
) -> None:
    assert await said(runtime, place, "id -u; touch /made", user="root") == "0"
    strict = dataclasses.replace(settings, allow_root_stages=False)
    refused = await with_settings(strict, sh("id", user="root"), place)
    assert (refused.exit_code, refused.reason) == (None, Reason.STAGE_FAILED)
    assert "runs no stage as root" in str(refused.message)
    assert (await with_settings(strict, sh("true"), place)).reason is None


async def test_the_images_own_user_where_the_operator_wants_that(settings: Settings, place: Place) -> None:
    result = await with_settings(dataclasses.replace(settings, stage_users="image"), sh("id -u"), place)
    assert result.stdout.text == "0\n"


async def test_a_read_only_stage_writes_to_job_and_tmp_alone(
    runtime: DockerRuntime, settings: Settings, place: Place
) -> None:
    script = "touch /job/x /tmp/x /dev/shm/x; touch /x /etc/x"
    result = await runtime.run_stage(sh(script, user="0", read_only=True), place)
    assert result.reason is Reason.STAGE_FAILED
    assert sorted(line.split(":")[1].strip() for line in result.stderr.text.splitlines()) == ["/etc/x", "/x"]
    everywhere = dataclasses.replace(settings, read_only=True)
    assert (await with_settings(everywhere, sh("touch /x", user="0"), place)).reason is Reason.STAGE_FAILED
    assert (await with_settings(everywhere, sh("touch /x", user="0", read_only=False), place)).reason is None


async def test_the_graders_proxy_is_not_the_containers(
    settings: Settings, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `docker run` passes on from the user's own configuration may be a proxy with a password."""
    proxies = {"proxies": {"default": {"httpProxy": "http://user:password@proxy:1"}}}
    (tmp_path / "config.json").write_text(json.dumps(proxies))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("BROADWAY_TOKEN", "a-secret")
    result = await with_settings(settings, sh("env"), place)
    names = {line.partition("=")[0] for line in result.stdout.text.splitlines()}
    assert "PATH" in names
    assert names <= {"PATH", "HOME", "HOSTNAME", "PWD", "SHLVL"}


async def test_another_oci_runtime_is_used_when_named(settings: Settings, place: Place, engine: Any) -> None:
    runtime = DockerRuntime(dataclasses.replace(settings, oci_runtime=OTHER_RUNTIME))
    assert (await runtime.open()).endswith(f"with {OTHER_RUNTIME}")
    running = asyncio.create_task(runtime.run_stage(sh("touch /job/started; sleep 60"), place))
    await until((place.directory / "started").exists, "the stage to start")
    used = engine.api.inspect_container(containers(engine, settings.instance)[0])["HostConfig"]["Runtime"]
    running.cancel()
    await asyncio.wait({running})
    await runtime.close()
    assert used == OTHER_RUNTIME


async def test_an_oci_runtime_that_the_engine_lacks_is_one_line_at_start(settings: Settings) -> None:
    runtime = DockerRuntime(dataclasses.replace(settings, oci_runtime="runsc"))
    with pytest.raises(SetupError, match=r"no OCI runtime 'runsc', only .*runc"):
        await runtime.open()
    await runtime.close()


def test_a_privileged_container_is_asked_for_as_such(settings: Settings, place: Place, engine: Any) -> None:
    """Looked at without being started: where the engine itself is confined it may start nothing privileged."""
    write_hosts(settings.work_dir)
    request = container_request(sh("true", privileged=True), place, settings, default_user="5:5")
    container = engine.api.create_container_from_config(request)["Id"]
    made = engine.api.inspect_container(container)
    engine.api.remove_container(container)
    assert (made["HostConfig"]["Privileged"], made["Config"]["User"]) == (True, "")
