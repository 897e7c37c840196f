"""What a stage may count on and what it may not do, the same in every runtime."""

from __future__ import annotations

import asyncio
import dataclasses
import resource
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broadway_grader.domain import Output, Reason, Stage
from broadway_grader.ending import Ending
from broadway_grader.errors import SetupError
from broadway_grader.removal import remove_tree
from broadway_grader.runtimes import RUNTIMES, choose
from broadway_grader.runtimes.attach import COUNTED_BYTES
from broadway_grader.runtimes.port import Place, Runtime, Settings
from tests.grader.stages import IMAGE, at, descriptors, processes, sh, until


async def test_a_stage_that_exits_with_0_succeeds(runtime: Runtime, place: Place) -> None:
    before = datetime.now(UTC)
    result = await runtime.run_stage(sh("echo out; echo err >&2"), place)
    assert (result.exit_code, result.reason, result.message) == (0, None, None)
    assert (result.stdout, result.stderr) == (Output(text="out\n"), Output(text="err\n"))
    assert before <= result.started_at <= result.finished_at <= datetime.now(UTC)
    assert (result.runtime, result.image) == (runtime.name, IMAGE)


@pytest.mark.parametrize("exit_code", [1, 3, 255])
async def test_any_other_exit_code_is_a_failure(runtime: Runtime, place: Place, exit_code: int) -> None:
    result = await runtime.run_stage(sh(f"exit {exit_code}"), place)
    assert (result.exit_code, result.reason) == (exit_code, Reason.STAGE_FAILED)


async def test_a_stage_that_dies_of_a_signal_has_failed(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("kill -9 $$"), place)
    assert (result.exit_code, result.reason) == (137, Reason.STAGE_FAILED)


async def test_the_environment_is_the_stages_and_nothing_of_the_grader(
    runtime: Runtime, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROADWAY_TOKEN", "a-secret-of-the-grader")
    env = {"PLAIN": "a b", "EMPTY": "", "ODD": "x=y $HOME 'q' \"d\"\nsecond line", "UTF8": "é✓"}
    result = await runtime.run_stage(Stage(image=IMAGE, env=env, entry_point=["cat", "/proc/self/environ"]), place)
    seen = dict(entry.split("=", 1) for entry in result.stdout.text.rstrip("\0").split("\0"))
    assert {name: seen.pop(name) for name in env} == env
    assert set(seen) <= {"PATH", "HOME", "HOSTNAME", "PWD"}
    assert "a-secret" not in result.stdout.text


async def test_the_environment_of_a_stage_replaces_the_runtimes_own(runtime: Runtime, place: Place) -> None:
    stage = Stage(image=IMAGE, env={"HOME": "/job"}, entry_point=["/bin/sh", "-c", "echo $HOME"])
    assert (await runtime.run_stage(stage, place)).stdout.text == "/job\n"


async def test_neither_the_environment_nor_its_values_are_shown_by_ps(runtime: Runtime, place: Place) -> None:
    secret = uuid.uuid4().hex
    stage = sh("touch /job/started; sleep 60", env={"KEY": secret})
    running = asyncio.create_task(runtime.run_stage(stage, place))
    await until((place.directory / "started").exists, "the stage to start")
    assert processes(secret) == []
    running.cancel()
    await asyncio.wait({running})


async def test_stages_share_job_and_nothing_else(runtime: Runtime, place: Place) -> None:
    first = await runtime.run_stage(sh("echo shared > /job/file; echo gone > /tmp/file"), at(place, 0))
    second = await runtime.run_stage(sh("cat /job/file; cat /tmp/file"), at(place, 1))
    assert first.reason is None
    assert (second.exit_code, second.stdout.text) == (1, "shared\n")


async def test_a_stage_that_takes_too_long_is_killed_with_all_that_it_forked(runtime: Runtime, place: Place) -> None:
    marker = f"29{uuid.uuid4().int % 10**9}"
    script = f"(setsid sleep {marker} >/dev/null 2>&1 &); (sleep {marker} &); echo begun; sleep {marker}"
    result = await runtime.run_stage(sh(script, timeout=2), place)
    assert (result.exit_code, result.reason) == (None, Reason.TIMEOUT)
    assert "2 s" in str(result.message)
    assert result.stdout.text == "begun\n"
    assert 1.9 < (result.finished_at - result.started_at).total_seconds() < 30
    assert processes(f"sleep {marker}") == []


async def test_a_stage_cannot_put_off_its_timeout_by_ignoring_signals(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("trap '' TERM INT HUP; while :; do sleep 1; done", timeout=0.5), place)
    assert result.reason is Reason.TIMEOUT


async def test_what_a_stage_leaves_running_ends_with_it(runtime: Runtime, place: Place) -> None:
    marker = f"28{uuid.uuid4().int % 10**9}"
    result = await runtime.run_stage(sh(f"(setsid sleep {marker} &) ; exit 0"), place)
    assert result.reason is None
    assert processes(f"sleep {marker}") == []


async def test_a_cancelled_stage_is_gone_when_it_returns(runtime: Runtime, place: Place) -> None:
    marker = f"27{uuid.uuid4().int % 10**9}"
    running = asyncio.create_task(runtime.run_stage(sh(f"touch /job/started; sleep {marker}"), place))
    await until((place.directory / "started").exists, "the stage to start")
    assert processes(f"sleep {marker}") != []
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert processes(f"sleep {marker}") == []


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 20])
async def test_a_stage_may_be_cancelled_at_any_moment(runtime: Runtime, place: Place, steps: int) -> None:
    """That no container is left is checked by the fixture."""
    marker = f"26{uuid.uuid4().int % 10**9}"
    running = asyncio.create_task(runtime.run_stage(sh(f"sleep {marker}"), place))
    for _ in range(steps):
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert processes(f"sleep {marker}") == []


async def test_there_is_no_network_unless_asked_for(runtime: Runtime, place: Place) -> None:
    count = "grep -c : /proc/net/dev"
    without = await runtime.run_stage(sh(count), at(place, 0))
    with_network = await runtime.run_stage(sh(count, enable_networking=True), at(place, 1))
    assert int(without.stdout.text) == 1, "only the loopback"
    assert int(with_network.stdout.text) > 1


async def test_the_host_name_is_the_stages(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("hostname; cat /proc/sys/kernel/hostname", host_name="grading-7"), place)
    assert result.stdout.text == "grading-7\ngrading-7\n"


async def test_output_is_kept_to_the_limit_and_apart(runtime: Runtime, place: Place, settings: Settings) -> None:
    limit = settings.limits.log_bytes
    result = await runtime.run_stage(sh("head -c 300000 /dev/zero | tr '\\0' x; echo fine >&2"), place)
    assert result.reason is None
    assert result.stdout == Output(text="x" * limit, truncated=True, dropped_bytes=300_000 - limit)
    assert result.stderr == Output(text="fine\n")


async def test_output_of_just_the_limit_is_not_truncated(runtime: Runtime, place: Place, settings: Settings) -> None:
    limit = settings.limits.log_bytes
    result = await runtime.run_stage(sh(f"head -c {limit} /dev/zero | tr '\\0' x >&2"), place)
    assert result.stderr == Output(text="x" * limit)


async def test_a_flood_of_output_neither_fails_the_stage_nor_fills_memory(
    runtime: Runtime, place: Place, settings: Settings
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = await runtime.run_stage(sh("head -c 1000000000 /dev/zero; echo end >&2", timeout=300), place)
    assert (result.exit_code, result.stderr.text) == (0, "end\n")
    most = COUNTED_BYTES if runtime.name == "docker" else 1_000_000_000 - settings.limits.log_bytes
    assert most <= result.stdout.dropped_bytes < most + 10**6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "KiB"


@pytest.mark.parametrize("script", ["cat /dev/zero; true", "cat /dev/zero >&2", "head -c 30000 /dev/zero"])
async def test_where_too_much_output_stops_a_stage_it_does(
    runtime_name: str, settings: Settings, place: Place, engine: object, script: str
) -> None:
    """Also one that was over before anybody could stop it: that is no matter of luck."""
    limits = dataclasses.replace(settings.limits, stop_at_log_bytes=True)
    runtime = RUNTIMES[runtime_name](dataclasses.replace(settings, limits=limits))
    await runtime.open()
    try:
        result = await runtime.run_stage(sh(script, timeout=120), place)
        just = await runtime.run_stage(sh(f"head -c {limits.log_bytes} /dev/zero"), place)
    finally:
        await runtime.close()
    assert (result.reason, result.message) == (Reason.OUTPUT_LIMIT, "it printed more than 20000 bytes")
    assert result.stdout.truncated or result.stderr.truncated
    assert just.reason is None


async def test_a_stage_can_be_ended_by_order(runtime: Runtime, place: Place) -> None:
    marker, ending = f"23{uuid.uuid4().int % 10**9}", Ending()
    running = asyncio.create_task(runtime.run_stage(sh(f"touch /job/started; sleep {marker}"), place, ending))
    await until((place.directory / "started").exists, "the stage to start")
    ending.order(Reason.DISK_LIMIT, "the first order")
    ending.order(Reason.TIMEOUT, "the second")
    result = await running
    assert (result.exit_code, result.reason, result.message) == (None, Reason.DISK_LIMIT, "the first order")
    assert processes(f"sleep {marker}") == []


async def test_a_stage_that_floods_is_still_killed_in_time(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("cat /dev/zero & cat /dev/zero >&2", timeout=1), place)
    assert result.reason is Reason.TIMEOUT
    assert result.stdout.truncated
    assert result.stderr.truncated
    assert (result.finished_at - result.started_at).total_seconds() < 30


async def test_output_that_is_no_utf8_is_replaced(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh(r"printf 'a\377b\303\251'"), place)
    assert result.stdout.text == "a\N{REPLACEMENT CHARACTER}bé"


async def test_no_carriage_returns_are_added(runtime: Runtime, place: Place) -> None:
    assert (await runtime.run_stage(sh("echo one; echo two; test -t 1"), place)).stdout.text == "one\ntwo\n"


async def test_output_that_is_not_wanted_is_not_kept(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("echo out; echo err >&2", logs=False), place)
    assert (result.reason, result.stdout, result.stderr) == (None, Output(), Output())


async def test_standard_input_is_empty(runtime: Runtime, place: Place) -> None:
    assert (await runtime.run_stage(sh("wc -c"), place)).stdout.text.strip() == "0"


async def test_an_entry_point_that_does_not_exist_is_the_courses_fault(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(Stage(image=IMAGE, entry_point=["/no/such/program"]), place)
    assert (result.exit_code, result.reason) == (127, Reason.STAGE_FAILED)
    assert result.message


async def test_an_entry_point_that_is_no_program_is_the_courses_fault(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(Stage(image=IMAGE, entry_point=["/tmp"]), place)
    assert (result.exit_code, result.reason) == (126, Reason.STAGE_FAILED)
    assert result.message


async def test_arguments_arrive_as_they_are(runtime: Runtime, place: Place) -> None:
    words = ["a b", "$HOME", "", "--", "-x", "é", "*"]
    stage = Stage(image=IMAGE, entry_point=["printf", "%s\n", *words])
    assert (await runtime.run_stage(stage, place)).stdout.text.split("\n")[:-1] == words


async def test_the_working_directory_is_the_stages(runtime: Runtime, place: Place) -> None:
    await runtime.run_stage(sh("mkdir /job/deep"), at(place, 0))
    for directory in ("/job", "/job/deep", "/made/for/it"):
        result = await runtime.run_stage(sh("pwd", working_dir=directory), place)
        assert (result.reason, result.stdout.text) == (None, f"{directory}\n")


async def test_a_user_is_taken_by_number(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("id -u; id -g; touch /job/mine", user="4711:4712"), place)
    assert (result.reason, result.stdout.text) == (None, "4711\n4712\n")


async def test_a_user_that_does_not_exist_is_the_courses_fault(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("id", user="nobody-of-that-name"), place)
    assert result.reason is Reason.STAGE_FAILED
    assert "nobody-of-that-name" in str(result.message)


async def test_a_stage_has_no_capabilities_and_cannot_get_any(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status"), place)
    status = dict(line.split(":\t") for line in result.stdout.text.splitlines())
    assert status == dict.fromkeys(("CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16) | {"NoNewPrivs": "1"}


async def test_a_stage_sees_no_process_of_the_host(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("ls -d /proc/[0-9]* | wc -l"), place)
    assert int(result.stdout.text) < 8


async def test_the_number_of_processes_is_limited(runtime: Runtime, place: Place) -> None:
    script = "i=0; while [ $i -lt 60 ]; do sleep 20 & i=$((i+1)); done; echo all"
    free = await runtime.run_stage(sh(script, pids=100), at(place, 0))
    held = await runtime.run_stage(sh(script, pids=20), at(place, 1))
    assert free.stdout.text == "all\n"
    assert "all" not in held.stdout.text
    assert held.reason is Reason.STAGE_FAILED


async def test_a_fork_bomb_ends_with_its_timeout(runtime: Runtime, place: Place) -> None:
    result = await runtime.run_stage(sh("b() { b | b & }; b; sleep 30", timeout=1.5, pids=40), place)
    assert result.reason in (Reason.TIMEOUT, Reason.STAGE_FAILED)
    after = await runtime.run_stage(sh("echo well"), place)
    assert after.stdout.text == "well\n"


async def test_wanting_too_much_memory_is_named(runtime: Runtime, place: Place) -> None:
    grow = "BEGIN { while (1) kept[i++] = i }"
    stage = Stage(image=IMAGE, entry_point=["awk", grow], memory=48 * 1024**2, timeout=30)
    result = await runtime.run_stage(stage, place)
    assert result.reason is Reason.OUT_OF_MEMORY
    assert str(48 * 1024**2) in str(result.message)


HOSTILE = """
cd /job
ln -s / root; ln -s /etc/passwd passwd; ln -s loop loop; mkfifo fifo
mkdir -p shut/in && touch shut/in/file && chmod 000 shut/in shut
mkdir -p readonly/in && touch readonly/in/file && chmod 555 readonly/in readonly
touch -- '-rf' ' ' moved-1 'new
line'; mkdir moved-2
i=0; while [ $i -lt 600 ]; do mkdir ddddddddddddddddddddddddddd && cd ddddddddddddddddddddddddddd; i=$((i+1)); done
ln -s / root; mkfifo fifo; echo deep
"""


async def test_whatever_a_stage_leaves_in_job_can_be_removed(runtime: Runtime, place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    (place.directory / "link").symlink_to(outside)
    result = await runtime.run_stage(sh(HOSTILE, timeout=60), place)
    assert result.stdout.text == "deep\n", result.stderr.text
    remove_tree(place.directory)
    assert not place.directory.exists()
    assert (outside / "precious").read_text() == "kept"


async def test_many_stages_run_at_once(runtime: Runtime, place: Place) -> None:
    """Each waits for the other three, so that one after the other would end in a timeout."""
    script = "touch /job/here-$ME; while [ $(ls /job | wc -l) -lt 4 ]; do sleep 0.1; done; echo $ME"
    stages = [sh(script, env={"ME": str(number)}, timeout=20) for number in range(4)]
    results = await asyncio.gather(*(runtime.run_stage(stage, at(place, 0)) for stage in stages))
    assert [result.stdout.text for result in results] == ["0\n", "1\n", "2\n", "3\n"]


async def test_the_event_loop_is_never_held_up(runtime: Runtime, place: Place) -> None:
    longest = 0.0
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        nonlocal longest
        while True:
            begun = loop.time()
            await asyncio.sleep(0.005)
            longest = max(longest, loop.time() - begun - 0.005)

    watching = asyncio.create_task(watch())
    stages = [sh("head -c 5000000 /dev/zero; sleep 2") for _ in range(4)]
    await asyncio.gather(*(runtime.run_stage(stage, place) for stage in stages))
    watching.cancel()
    assert longest < 1, "generous, for busy machines; whoever waited for a stage here would wait for 2 s"


async def test_no_descriptor_and_no_thread_is_lost(runtime: Runtime, place: Place) -> None:
    await asyncio.gather(*(runtime.run_stage(sh("true"), place) for _ in range(4)))
    open_files, threads = descriptors(), threading.active_count()
    for _ in range(5):
        await asyncio.gather(*(runtime.run_stage(sh("echo x"), place) for _ in range(2)))
    assert descriptors() <= open_files + 4, "a pool of connections grows up to its size"
    assert threading.active_count() <= threads + 4, "and so does one of threads"


async def test_closing_is_harmless_at_any_time(runtime_name: str, settings: Settings) -> None:
    runtime = RUNTIMES[runtime_name](settings)
    await runtime.close()
    await runtime.close()


async def test_auto_takes_docker_where_an_engine_answers(engine: object, settings: Settings) -> None:
    runtime = await choose("auto", settings)
    await runtime.close()
    assert runtime.name == "docker"


async def test_auto_takes_the_sandbox_elsewhere_and_says_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with caplog.at_level("INFO"):
        runtime = await choose("auto", settings)
    await runtime.close()
    assert runtime.name == "sandbox"
    assert "no Docker Engine answers" in caplog.text


async def test_auto_may_depend_on_an_image(
    engine: object, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    for image, name in ((IMAGE, "docker"), ("127.0.0.1:9/no-such-image:1", "sandbox")):
        with caplog.at_level("INFO"):
            runtime = await choose("auto", dataclasses.replace(settings, auto_image=image))
        await runtime.close()
        assert runtime.name == name
    assert "image 127.0.0.1:9/no-such-image:1 is not available" in caplog.text
    named = await choose("docker", dataclasses.replace(settings, auto_image="127.0.0.1:9/no-such-image:1"))
    await named.close()


async def test_a_runtime_that_is_named_is_not_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(SetupError, match="no Docker Engine answers"):
        await choose("docker", settings)


async def test_a_stage_may_be_bound_to_some_cpus(runtime: Runtime, place: Place) -> None:
    script = "grep Cpus_allowed_list /proc/self/status"
    result = await runtime.run_stage(sh(script, cpuset_cpus="1"), place)
    assert result.reason is None, result.message
    assert result.stdout.text.split() == ["Cpus_allowed_list:", "1"]
    missing = await runtime.run_stage(sh(script, cpuset_cpus="1000-1001"), at(place, 1))
    assert missing.reason is Reason.STAGE_FAILED
