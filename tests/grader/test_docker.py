"""What only the docker runtime promises."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from broadway_grader.domain import Reason, Stage
from broadway_grader.runtimes import images, layer
from broadway_grader.runtimes.attach import Frames
from broadway_grader.runtimes.confinement import INSTANCE_LABEL
from broadway_grader.runtimes.docker import DockerRuntime
from broadway_grader.runtimes.engine import listener_sees_our_mounts
from broadway_grader.runtimes.hosts import hosts_file
from broadway_grader.runtimes.images import Images, ImageUnavailable
from broadway_grader.runtimes.port import Place, Settings
from tests.grader.conftest import containers
from tests.grader.identity import as_user
from tests.grader.stages import IMAGE, sh, until

#: As many files as would take 50 MB, though they are empty.
FILES = "mkdir -p /f; cd /f; seq 13000 | xargs touch"
#: Nothing listens there, so that pulling fails at once.
NO_REGISTRY = "127.0.0.1:1"


@pytest.fixture
def runtime_name() -> str:
    return "docker"


@contextlib.asynccontextmanager
async def inspected(runtime: DockerRuntime, stage: Stage, place: Place, engine: Any) -> AsyncIterator[dict[str, Any]]:
    """What the engine says of the container of a stage that makes /job/started and then takes its time."""
    running = asyncio.create_task(runtime.run_stage(stage, place))
    await until((place.directory / "started").exists, "the stage to start")
    try:
        yield engine.api.inspect_container(containers(engine, runtime._settings.instance)[0])
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_container_tells_whose_it_is(
    runtime: DockerRuntime, settings: Settings, place: Place, engine: Any
) -> None:
    async with inspected(runtime, sh("touch /job/started; sleep 60"), place, engine) as container:
        assert container["Config"]["Labels"] == {
            INSTANCE_LABEL: settings.instance,
            "broadway.job-id": place.job_id,
            "broadway.attempt": "2",
            "broadway.stage": "1",
        }


async def test_the_result_names_what_ran(runtime: DockerRuntime, place: Place, engine: Any) -> None:
    result = await runtime.run_stage(sh("true"), place)
    assert result.image_digest == engine.images.get(IMAGE).id
    assert not result.image_ignored


async def test_without_an_entry_point_the_images_own_command_runs(runtime: DockerRuntime, place: Place) -> None:
    assert (await runtime.run_stage(Stage(image=IMAGE), place)).reason is None


@pytest.fixture
def image_with_entry_point(engine: Any) -> Iterator[str]:
    name = "broadway-test-entry-point:latest"
    container = engine.api.create_container(IMAGE, command=["true"])
    changes = ['ENTRYPOINT ["echo", "the image\'s"]', 'CMD ["command"]', "VOLUME /data", "ENV OF_IMAGE=yes"]
    engine.api.commit(container, repository=name.split(":", maxsplit=1)[0], tag="latest", changes=changes)
    engine.api.remove_container(container)
    yield name
    engine.api.remove_image(name, force=True)


async def test_an_entry_point_replaces_the_images_entry_point_and_command(
    runtime: DockerRuntime, place: Place, image_with_entry_point: str, engine: Any
) -> None:
    volumes = len(engine.volumes.list())
    own = await runtime.run_stage(Stage(image=image_with_entry_point), place)
    ours = await runtime.run_stage(
        Stage(image=image_with_entry_point, entry_point=["sh", "-c", "echo $OF_IMAGE"]), place
    )
    assert (own.stdout.text, ours.stdout.text) == ("the image's command\n", "yes\n")
    await runtime.release(place.slot)
    assert len(engine.volumes.list()) == volumes, "the volumes that the image asks for are removed"


async def test_a_stage_without_a_network_has_a_loopback_device_and_localhost(
    runtime: DockerRuntime, place: Place, settings: Settings
) -> None:
    script = """if True:
        import contextlib, socket
        for family in socket.AF_INET, socket.AF_INET6:
            with socket.create_server(("localhost", 0), family=family) as server:
                with socket.create_connection(("localhost", server.getsockname()[1])):
                    print(server.getsockname()[0])
        with contextlib.suppress(OSError), open("/etc/hosts", "a") as hosts:
            hosts.write("127.0.0.1 shared")
        print(socket.if_nameindex())
    """
    stage = Stage(image="broadway-python:latest", entry_point=["python3", "-c", script], user="0")
    result = await runtime.run_stage(stage, place)
    assert (result.stderr.text, result.stdout.text) == ("", "127.0.0.1\n::1\n[(1, 'lo')]\n")
    assert "shared" not in hosts_file(settings.work_dir).read_text(), "it is every stage's"


async def test_what_the_engine_refuses_outright_is_the_courses_fault(runtime: DockerRuntime, place: Place) -> None:
    result = await runtime.run_stage(sh("true", memory=4096), place)
    assert (result.exit_code, result.reason) == (None, Reason.STAGE_FAILED)
    assert result.message


async def test_a_missing_image_is_named_with_the_machine(runtime: DockerRuntime, place: Place) -> None:
    image = f"{NO_REGISTRY}/no/such:image"
    result = await runtime.run_stage(Stage(image=image, entry_point=["true"]), place)
    assert (result.exit_code, result.reason) == (None, Reason.IMAGE_UNAVAILABLE)
    assert image in str(result.message)
    assert socket.gethostname() in str(result.message)


async def test_a_name_that_no_image_can_have_is_named(runtime: DockerRuntime, place: Place) -> None:
    result = await runtime.run_stage(Stage(image="No Such Image!", entry_point=["true"]), place)
    assert result.reason is Reason.IMAGE_UNAVAILABLE


@pytest.mark.parametrize(("policy", "available"), [("missing", True), ("never", True), ("always", False)])
async def test_the_policy_decides_when_to_pull(
    settings: Settings, place: Place, engine: Any, policy: str, available: bool
) -> None:
    name = f"{NO_REGISTRY}/broadway-local:latest"
    engine.images.get(IMAGE).tag(name)
    runtime = DockerRuntime(dataclasses.replace(settings, image_pull_policy=policy))
    await runtime.open()
    try:
        result = await runtime.run_stage(Stage(image=name, entry_point=["true"]), place)
    finally:
        await runtime.close()
        engine.api.remove_image(name)
    assert (result.reason is None) is available, result.message


class Registry:
    """An engine whose one image takes its time to be pulled."""

    def __init__(self) -> None:
        self.pulls = 0
        self.here = False

    def inspect_image(self, name: str) -> dict[str, Any]:
        if not self.here:
            raise docker.errors.ImageNotFound("No such image")
        return {"Id": "sha256:1", "RepoDigests": ["broadway@sha256:2"]}

    def pull(self, name: str, *, stream: bool, decode: bool) -> Iterator[dict[str, str]]:
        self.pulls += 1
        yield {"status": "Pulling"}
        self.here = True


async def _in_thread(function: Any, *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


async def _no_news() -> None:
    return None


async def test_an_image_is_pulled_once_for_all_who_wait() -> None:
    registry = Registry()
    shelf = Images(registry, "missing", _in_thread, _no_news)
    digests = await asyncio.gather(*(shelf.ensure("broadway") for _ in range(5)))
    assert (set(digests), registry.pulls) == ({"broadway@sha256:2"}, 1)


async def test_a_pull_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PULL_TIMEOUT", 0.01)

    async def never(function: Any, *arguments: Any) -> Any:
        return await _in_thread(function, *arguments) if function.__name__ == "_find" else await asyncio.Event().wait()

    with pytest.raises(ImageUnavailable, match="took more than"):
        await Images(Registry(), "missing", never, _no_news).ensure("broadway")


async def test_pulling_does_not_count_against_the_timeout(
    runtime: DockerRuntime, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(shelf: Images, image: str) -> str:
        await asyncio.sleep(3.1)
        return "sha256:1"

    monkeypatch.setattr(Images, "ensure", slow)
    result = await runtime.run_stage(sh("true", timeout=3), place)
    assert result.reason is None


async def test_containers_of_an_earlier_life_are_removed_and_no_others(
    runtime: DockerRuntime, settings: Settings, engine: Any
) -> None:
    def left(instance: str) -> str:
        container = engine.api.create_container(IMAGE, command=["sleep", "600"], labels={INSTANCE_LABEL: instance})
        engine.api.start(container)
        return str(container["Id"])

    ours, others = left(settings.instance), left("another-grader")
    try:
        await runtime.remove_leftovers()
        assert containers(engine, settings.instance) == []
        assert containers(engine, "another-grader") == [others]
    finally:
        for container in (ours, others):
            with contextlib.suppress(docker.errors.NotFound):
                engine.api.remove_container(container, force=True)


async def test_a_container_removed_by_somebody_else_is_no_success(
    runtime: DockerRuntime, place: Place, engine: Any, settings: Settings
) -> None:
    running = asyncio.create_task(runtime.run_stage(sh("touch /job/started; sleep 60"), place))
    await until((place.directory / "started").exists, "the stage to start")
    engine.api.remove_container(containers(engine, settings.instance)[0], force=True)
    assert (await running).reason in (Reason.RUNTIME_ERROR, Reason.STAGE_FAILED)


async def test_a_failing_engine_is_not_blamed_on_the_stage(
    runtime: DockerRuntime, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise docker.errors.APIError("no space left on device")

    monkeypatch.setattr(runtime._engine.api, "start", fail)
    result = await runtime.run_stage(sh("true"), place)
    assert result.reason is Reason.RUNTIME_ERROR
    assert "no space left" in str(result.message)


async def test_a_container_that_could_not_be_removed_is_removed_later(
    runtime: DockerRuntime, settings: Settings, place: Place, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise docker.errors.APIError("device or resource busy")

    with monkeypatch.context() as broken:
        broken.setattr(runtime._engine.api, "remove_container", fail)
        assert (await runtime.run_stage(sh("true"), place)).reason is None
        await runtime.release(place.slot)
    assert len(containers(engine, settings.instance)) == 1
    await runtime.run_stage(sh("true"), place)
    await runtime.release(place.slot)
    assert containers(engine, settings.instance) == []


@pytest.mark.parametrize("cut", range(1, 12))
def test_frames_may_be_cut_anywhere(cut: int) -> None:
    stream = b"".join(b"\1\0\0\0" + len(text).to_bytes(4, "big") + text for text in (b"hello ", b"", b"w", b"orld"))
    frames = Frames()
    chunks = [stream[start : start + cut] for start in range(0, len(stream), cut)]
    assert b"".join(payload for chunk in chunks for payload in frames.feed(chunk)) == b"hello world"


async def test_an_engine_that_does_not_see_our_mounts_says_so(runtime: DockerRuntime, place: Place) -> None:
    """It looks for /job where it sees the directory below, which is empty. No stage can bring that about."""
    elsewhere = dataclasses.replace(place, directory=place.directory / "job")
    result = await runtime.run_stage(sh("true"), elsewhere)
    assert result.reason is Reason.RUNTIME_ERROR
    assert "bind source path does not exist" in str(result.message)


async def test_a_grader_that_could_not_remove_another_users_files_does_not_let_it_make_any(
    runtime: DockerRuntime, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    result = await runtime.run_stage(sh("touch /job/file", user="1235:1234"), place)
    assert result.reason is Reason.RUNTIME_ERROR, "another grader may be root"
    assert "only as its own user 1234, not 1235:1234" in str(result.message)
    assert list(place.directory.iterdir()) == []
    assert (await runtime.run_stage(sh("touch /job/file", user="1234"), place)).reason is None


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("script", ["head -c 30000000 /dev/zero > /a", FILES], ids=["bytes", "files"])
async def test_a_stage_that_fills_its_containers_disk_is_stopped(
    settings: Settings, place: Place, monkeypatch: pytest.MonkeyPatch, script: str, local: bool
) -> None:
    if not local:
        if script == FILES:
            return  # of files the engine counts the bytes alone
        monkeypatch.setattr(layer, "ENGINE_INTERVAL", 0.6)
        monkeypatch.setattr("os.access", lambda *_: False)
    limits = dataclasses.replace(settings.limits, disk=40 * 10**6)
    runtime = DockerRuntime(dataclasses.replace(settings, limits=limits))
    await runtime.open()
    try:
        # In two files: no single one may be larger than all of them.
        result = await runtime.run_stage(sh(f"{script}; {script}b; sleep 100", user="0", timeout=40), place)
    finally:
        await runtime.close()
    assert (result.exit_code, result.reason) == (None, Reason.DISK_LIMIT), result.message
    assert "outside of /job" in str(result.message)


async def test_volumes_of_the_image_are_bounded_too(
    settings: Settings, place: Place, image_with_entry_point: str
) -> None:
    runtime = DockerRuntime(
        dataclasses.replace(settings, limits=dataclasses.replace(settings.limits, disk=4 * 10**6), read_only=True)
    )
    await runtime.open()
    script = "for n in 1 2 3; do head -c 2000000 /dev/zero > /data/$n; done; sleep 60"
    stage = Stage(image=image_with_entry_point, entry_point=["sh", "-c", script], user="0")
    result = await runtime.run_stage(stage, place)
    await runtime.close()
    assert result.reason is Reason.DISK_LIMIT, result.message


async def test_the_result_says_what_the_stage_used(runtime: DockerRuntime, place: Place) -> None:
    """Unless the machine is so busy that the engine has cleared up before we looked."""
    script = "head -c 30000000 /dev/zero > /tmp/memory; i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"
    for _ in range(6):
        result = await runtime.run_stage(sh(script, timeout=60), place)
        if result.memory_peak_bytes is not None:
            break
    assert result.memory_peak_bytes is not None
    assert 30_000_000 < result.memory_peak_bytes < 60_000_000
    assert result.cpu_seconds is not None
    assert 0.1 < result.cpu_seconds < 30


def test_a_socket_that_may_not_be_opened_is_a_matter_of_permission(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a fork of ours that becomes another user: nothing is closed to root."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o660)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")

        async def opened() -> str:
            return await DockerRuntime(settings).open()

        said = as_user(lambda: asyncio.run(opened()))
    assert f"{path} is there, but this user may not open it: add the user to the group docker" in said


async def test_this_engine_sees_what_we_mount_and_one_over_tcp_is_not_taken_to(
    settings: Settings, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = DockerRuntime(settings)
    await runtime.open()
    assert runtime.sees_our_mounts is (os.geteuid() == 0)
    await runtime.close()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert listener_sees_our_mounts() is False
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    assert listener_sees_our_mounts() is False


def test_an_engine_with_a_view_of_its_own_does_not_see_what_we_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();"
        " print('listening', flush=True); s.accept()"
    )
    for wrapper, seen in (([], True), (["unshare", "--mount"], False)):
        path = tmp_path / f"socket-{seen}"
        with subprocess.Popen([*wrapper, sys.executable, "-c", listen, path], stdout=subprocess.PIPE) as listener:
            assert listener.stdout is not None
            listener.stdout.readline()
            monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
            assert listener_sees_our_mounts() is seen
