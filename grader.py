"""Start a grader.

    python3 grader.py <cluster token> [--api URL] [--slots N] [--runtime auto|docker|sandbox] [--work-dir DIR]
    python3 grader.py --self-test [--runtime …]

The second attacks this machine's own runtime with everything in the catalogue and prints what held; status 0 if every
must-hold did, else 1. The first tries a quick part of it before it registers, and does not start if that fails.

One SIGTERM or SIGINT: it takes no more jobs, finishes and reports those that run, deregisters, and exits with status 0.
A second one: it kills what runs, hands it back to the queue, and exits with status 1. Status 2: it cannot start like
this, and one line says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from broadway_grader import __version__, volumes
from broadway_grader.attacks.assault import Assault
from broadway_grader.attacks.attack import PYTHON, SHELL
from broadway_grader.attacks.self_test import StartTest, attack_everything
from broadway_grader.client import ApiClient
from broadway_grader.delivery import Delivery
from broadway_grader.domain import parse_bytes
from broadway_grader.errors import SetupError, Unauthorized
from broadway_grader.live_output import LiveOutput
from broadway_grader.recovery import Recovery
from broadway_grader.registration import Membership, WorkerDetails
from broadway_grader.retry import Backoff
from broadway_grader.runner import JobRunner
from broadway_grader.runtimes import choose
from broadway_grader.runtimes.port import Limits, Runtime, Settings
from broadway_grader.runtimes.users import parse_users
from broadway_grader.volumes.port import Bound
from broadway_grader.worker import Worker
from broadway_grader.workspace import WorkDirectory
from config import GraderConfig
from logs import Logging, start_logging

STOPPED_HARD, SELF_TEST_FAILED, CANNOT_START = 1, 1, 2
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Bytes; what a file system needs to be one, and what nobody means.
LEAST_JOB_DISK, MOST_JOB_DISK = 1024**2, 1024**4


async def serve(config: GraderConfig, directory: WorkDirectory) -> int:
    """Work for the configured API until signalled; returns the exit status. Raises SetupError and Unauthorized."""
    ca_certificate = Path(config.ca_certificate) if config.ca_certificate else None
    backoff = Backoff()
    live = LiveOutput(is_on=config.live_output)
    async with ApiClient(config.api, config.token, ca_certificate=ca_certificate) as client:
        async with opened(config, directory, live) as (runtime, runner):
            with ended_by_signals():
                shown = await start_test(config, directory).run(
                    assault(config, directory, runtime, runner), runtime.name, slots=config.slot_count
                )
            details = WorkerDetails(
                hostname=socket.gethostname(),
                slots=config.slot_count,
                runtime=runtime.name,
                version=__version__,
                labels=config.labels | {"self_test": shown},
            )
            spool, ids = directory.spool, directory.worker_ids
            membership = Membership(client, details, ids, backoff)
            delivery = Delivery(client, membership, spool, backoff)
            # Read before this life registers and writes results of its own.
            results, worker_ids = await asyncio.to_thread(lambda: (spool.load(), ids.load()))
            recovery = Recovery(client, delivery, ids, backoff, results=results, worker_ids=worker_ids)
            worker = Worker(
                client,
                membership,
                runner,
                delivery,
                spool,
                recovery,
                slots=config.slot_count,
                poll_wait=config.poll_wait,
                backoff=backoff,
                live=live,
            )
            stops = [worker.stop_now, worker.stop]
            status = 0

            def on_signal() -> None:
                nonlocal status
                if len(stops) == 1:
                    status = STOPPED_HARD
                if stops:
                    stops.pop()()

            for number in STOP_SIGNALS:
                asyncio.get_running_loop().add_signal_handler(number, on_signal)
            await worker.run()
        return status


async def self_test(config: GraderConfig, directory: WorkDirectory) -> int:
    """Attack this machine's runtime with the whole catalogue; the exit status says whether every must-hold did."""
    async with opened(config, directory) as (runtime, runner):
        with ended_by_signals():
            held = await attack_everything(
                assault(config, directory, runtime, runner), runtime.name, slots=config.slot_count, write=print
            )
    return 0 if held else SELF_TEST_FAILED


@contextlib.asynccontextmanager
async def opened(
    config: GraderConfig, directory: WorkDirectory, live: LiveOutput | None = None
) -> AsyncIterator[tuple[Runtime, JobRunner]]:
    """The configured runtime, and what runs jobs in it. Raises SetupError."""
    runtime = await choose(config.runtime, settings(config, directory))
    try:
        await asyncio.to_thread(directory.remove_leftovers)
        bound, visible = job_bound(config), runtime.sees_our_mounts
        directory.bound_jobs(
            await asyncio.to_thread(volumes.choose, config.job_bound, bound, directory.jobs, visible=visible)
        )
        yield (
            runtime,
            JobRunner(
                runtime, directory, slots=config.slot_count, max_results_bytes=config.max_results_bytes, live=live
            ),
        )
    finally:
        await runtime.close()


def assault(config: GraderConfig, directory: WorkDirectory, runtime: Runtime, runner: JobRunner) -> Assault:
    """What carries out the self-test's attacks."""
    return Assault(
        runner,
        directory,
        runtime=runtime.name,
        limits=settings(config, directory).limits,
        bound=job_bound(config),
        allow_root=config.allow_root_stages,
        images={SHELL: config.self_test_image, PYTHON: config.self_test_python_image},
        secrets={config.token} - {""},
    )


def start_test(config: GraderConfig, directory: WorkDirectory) -> StartTest:
    """The self-test before the first job; what it found is valid for these very options."""
    options = {**dataclasses.asdict(config), "token": None}
    return StartTest(
        mode=config.self_test_at_start, record=directory.path / "self_test", configuration=[__version__, options]
    )


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGINT cancel the current task, so that it leaves nothing running."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "only within a task"  # noqa: S101
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


def job_bound(config: GraderConfig) -> Bound:
    """What the options say about the size of /job; SetupError where they say nothing usable."""
    try:
        size = parse_bytes(config.job_disk)
    except ValueError as error:
        raise SetupError(f"--job-disk: {error}") from error
    if not LEAST_JOB_DISK <= size <= MOST_JOB_DISK:
        raise SetupError(f"--job-disk must be between 1m and 1t, not {config.job_disk}")
    return Bound(bytes=size, files=config.job_files)


def settings(config: GraderConfig, directory: WorkDirectory) -> Settings:
    """What the options say about the runtime; SetupError where they say nothing usable."""
    sizes = {}
    for option in ("stage_memory", "stage_tmp", "stage_disk"):
        try:
            sizes[option] = parse_bytes(getattr(config, option))
        except ValueError as error:
            raise SetupError(f"--{option.replace('_', '-')}: {error}") from error
    try:
        users = parse_users(config.stage_user, slots=config.slot_count)
    except ValueError as error:
        raise SetupError(f"--stage-user: {error}") from error
    return Settings(
        limits=Limits(
            memory=sizes["stage_memory"],
            cpus=config.stage_cpus,
            pids=config.stage_pids,
            log_bytes=config.max_log_bytes,
            stop_at_log_bytes=config.excess_output == "stop",
            tmp=sizes["stage_tmp"],
            disk=sizes["stage_disk"],
        ),
        slots=config.slot_count,
        instance=directory.instance,
        work_dir=directory.path,
        image_pull_policy=config.image_pull_policy,
        stage_users=users,
        allow_root_stages=config.allow_root_stages,
        read_only=config.stage_read_only,
        oci_runtime=config.oci_runtime,
        auto_image=config.auto_image,
    )


def main(arguments: Sequence[str]) -> int:
    """Run the grader; returns its exit status."""
    config = GraderConfig.load(arguments)
    try:
        with WorkDirectory(Path(config.work_dir)) as directory, start_log(config):
            return asyncio.run((self_test if config.self_test else serve)(config, directory))
    except (SetupError, Unauthorized) as error:
        print(f"{config.program()}: {error}", file=sys.stderr)
        return CANNOT_START
    except (KeyboardInterrupt, asyncio.CancelledError):  # before there was anything to stop
        return STOPPED_HARD


def start_log(config: GraderConfig) -> Logging:
    """Start logging as configured; SetupError if the directory cannot be written."""
    try:
        return start_logging(config.log_level, config.log_path, "grader", config.log_format)
    except OSError as error:
        raise SetupError(f"cannot log to {config.log_path}: {error}") from error


if __name__ == "__main__":
    exit_status = main(sys.argv[1:])
    # Not sys.exit(): it waits for every thread, and an engine can hold up one that waits for it (a pull, say) for long.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_status)
