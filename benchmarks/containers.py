"""What a job's stages cost beside the bare engine, and beside a bare bwrap.

python -m benchmarks.containers [--quick]      as root, with an engine and the image of the tests

Ours and theirs take turns, so that both meet the same machine. With several slots a real grader drains the runs of a
real API, with each result on disk before it is sent; on the other side as many threads call the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare import BareBwrap, BareEngine
from benchmarks.figures import Figure, main
from benchmarks.load import Connection, ask_json
from benchmarks.servers import ROOT, TOKEN, Server, api
from broadway_client.cli.processes import start
from broadway_grader import volumes
from broadway_grader.domain import Job, Stage
from broadway_grader.runner import JobRunner
from broadway_grader.runtimes.docker import DockerRuntime
from broadway_grader.runtimes.port import Limits, Place, Runtime, Settings
from broadway_grader.runtimes.sandbox import SandboxRuntime
from broadway_grader.workspace import DEFAULT_BOUND, WorkDirectory

STAGE = Stage(image="broadway-busybox:latest", entry_point=["true"])
LIMITS = Limits(memory=512 * 1024**2, cpus=1.0, pids=256, log_bytes=1024**2)
ROUNDS, QUICK_ROUNDS = 15, 5
SANDBOX_ROUNDS, QUICK_SANDBOX_ROUNDS = 60, 15
#: With several slots: jobs in a turn, and turns; 200 jobs in all.
JOBS, QUICK_JOBS, TURNS = 40, 6, 5
#: Seconds that a turn may take on a machine that does other things.
PATIENCE = 300.0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A runtime that is open, and what runs jobs in it."""

    runtime: Runtime
    runner: JobRunner
    settings: Settings
    directory: Path  # open to everybody, as a /job is

    async def job(self, stages: int = 1) -> None:
        """Run a job of so many stages, with the making and removing of its /job."""
        result = await self.runner.run(Job(job_id="bench", attempt=1, stages=[STAGE] * stages))
        if result.reason is not None:
            raise RuntimeError(f"a job failed: {result.stages[-1].message}")

    async def stage(self) -> None:
        """Run a stage alone."""
        place = Place(job_id="bench", attempt=1, stage=0, slot=0, directory=self.directory)
        result = await self.runtime.run_stage(STAGE, place)
        if result.reason is not None:
            raise RuntimeError(f"a stage failed: {result.message}")


async def measure(quick: bool) -> list[Figure]:
    async with bench(DockerRuntime) as docker:
        figures = await one_after_another(docker, QUICK_ROUNDS if quick else ROUNDS)
        for slots in (2, 4):
            figures += await side_by_side(docker, slots, QUICK_JOBS if quick else JOBS)
    async with bench(SandboxRuntime) as sandbox:
        figures += await sandboxed(sandbox, QUICK_SANDBOX_ROUNDS if quick else SANDBOX_ROUNDS)
    return figures


async def one_after_another(bench: Bench, rounds: int) -> list[Figure]:
    """Jobs of one stage and of three in one slot."""
    with contextlib.closing(BareEngine(STAGE, bench.settings, bench.directory)) as bare:
        seconds, cpu = await in_turns(
            {
                "bare": lambda: asyncio.to_thread(bare.run),
                "one": bench.job,
                "three": lambda: bench.job(3),
                "as usual": lambda: asyncio.to_thread(bare.run, engines_network=True),
            },
            rounds,
        )
    ms = {name: 1000 * statistics.median(each) for name, each in seconds.items()}
    return [
        Figure(
            what="container, job of one stage",
            value=ratio(seconds["one"], seconds["bare"]),
            unit="× bare engine",
            at_most=1.15,
            note=f"{ms['one']:.0f} ms; bare {ms['bare']:.0f} ms",
        ),
        Figure(
            what="container, beside the engine's own network `none`",
            value=ratio(seconds["one"], seconds["as usual"]),
            unit="× bare engine",
            note=f"{ms['one']:.0f} ms; bare {ms['as usual']:.0f} ms",
        ),
        Figure(
            what="container, job of three stages",
            value=ratio(seconds["three"], seconds["one"]) / 3,
            unit="× three jobs of one",
            at_most=1.05,
            note=f"{ms['three']:.0f} ms; three bare ones {3 * ms['bare']:.0f} ms",
        ),
        Figure(
            what="container, the grader's CPU without claim and report",
            value=1000 * cpu["one"],
            unit="ms a job",
            note=f"{1000 * cpu['three']:.1f} ms with three stages; of the bare SDK's calls {1000 * cpu['bare']:.1f} ms",
        ),
    ]


async def side_by_side(bench: Bench, slots: int, jobs: int) -> list[Figure]:
    """Runs of so many jobs, claimed and reported over HTTP by a grader with several slots."""
    threads = ThreadPoolExecutor(slots)
    cpu: list[float] = []
    async with api() as server, grader(server, slots) as process:
        with contextlib.closing(BareEngine(STAGE, bench.settings, bench.directory)) as bare:

            async def theirs() -> None:
                calls = [asyncio.get_running_loop().run_in_executor(threads, bare.run) for _ in range(jobs)]
                await asyncio.gather(*calls)

            async def ours() -> None:
                before = process_cpu(process)
                await drain(server, jobs)
                cpu.append((process_cpu(process) - before) / jobs)

            await drain(server, slots)  # what comes first has to be found out
            seconds, _ = await in_turns({"bare": theirs, "ours": ours}, TURNS)
    threads.shutdown()
    rate = {name: jobs / statistics.median(each) for name, each in seconds.items()}
    return [
        Figure(
            what=f"container, {TURNS} × {jobs} jobs, a grader of {slots} slots",
            value=ratio(seconds["ours"], seconds["bare"]),
            unit=f"× {slots} bare threads",
            at_most=1.15,
            note=f"{rate['ours']:.1f} jobs/s; bare {rate['bare']:.1f}/s",
        ),
        Figure(
            what=f"container, CPU of a grader of {slots} slots",
            value=1000 * statistics.median(cpu[1:]),
            unit="ms a job",
            note="of the process alone, with claim, spool and report",
        ),
    ]


async def sandboxed(bench: Bench, rounds: int) -> list[Figure]:
    """Stages in one slot."""
    bare = BareBwrap(STAGE, bench.settings, bench.directory)
    seconds, cpu = await in_turns({"bare": lambda: asyncio.to_thread(bare.run), "ours": bench.stage}, rounds)
    ms = {name: 1000 * statistics.median(each) for name, each in seconds.items()}
    return [
        Figure(
            what="sandbox, one stage",
            value=ratio(seconds["ours"], seconds["bare"]),
            unit="× bare bwrap",
            at_most=1.5,
            note=f"{ms['ours']:.1f} ms, {1000 * cpu['ours']:.1f} ms CPU of the grader; bare {ms['bare']:.1f} ms",
        )
    ]


async def in_turns(
    ways: Mapping[str, Callable[[], Awaitable[None]]], rounds: int
) -> tuple[Mapping[str, list[float]], Mapping[str, float]]:
    """Seconds that each of the ways took, in each round, and the median of the CPU seconds of this process."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for each in range(rounds + 1):
        for name, way in ways.items():
            begun, used = time.perf_counter(), time.process_time()
            await way()
            if each > 0:  # the first round finds things out that the others know
                seconds[name].append(time.perf_counter() - begun)
                cpu[name].append(time.process_time() - used)
    return seconds, {name: statistics.median(each) for name, each in cpu.items()}


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over all rounds."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


@contextlib.asynccontextmanager
async def bench(kind: Callable[[Settings], Runtime]) -> AsyncIterator[Bench]:
    """One slot in a runtime of that kind, with /job as this machine can best bound it."""
    with tempfile.TemporaryDirectory(prefix="broadway-bench-") as name, WorkDirectory(Path(name) / "work") as work:
        directory = Path(name) / "job"
        directory.mkdir()
        directory.chmod(0o777)
        settings = Settings(limits=LIMITS, slots=1, instance=work.instance, work_dir=work.path)
        runtime = kind(settings)
        await runtime.open()
        try:
            work.bound_jobs(volumes.choose("auto", DEFAULT_BOUND, work.jobs, visible=runtime.sees_our_mounts))
            yield Bench(
                runner=JobRunner(runtime, work, slots=1), runtime=runtime, settings=settings, directory=directory
            )
        finally:
            await runtime.close()


@contextlib.asynccontextmanager
async def grader(server: Server, slots: int) -> AsyncIterator[int]:
    """`grader.py` in a process of its own; its number."""
    with tempfile.TemporaryDirectory(prefix="broadway-bench-") as name:
        work = Path(name)
        options = ["--api", f"http://127.0.0.1:{server.port}", "--slots", str(slots), "--runtime", "docker"]
        options += ["--work-dir", str(work / "work"), "--self-test-at-start", "never"]
        environment = {**os.environ, "BROADWAY_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        process = start([sys.executable, "grader.py", *options], log=work / "grader.log", environment=environment)
        try:
            yield process.pid
        finally:
            process.stop(30)


async def drain(server: Server, jobs: int) -> None:
    """A run of so many jobs, from its start to its end."""
    connection = await Connection.open(server.port)
    stage = {"image": STAGE.image, "entry_point": STAGE.entry_point}
    config = {"students": [{"NET_ID": str(number)} for number in range(jobs)], "student_pipeline": [stage]}
    run = (await ask_json(connection, "POST", "/api/v1/grading_run", config, token=TOKEN))["grading_run_id"]
    path = f"/api/v1/grading_run/{run}"
    await ask_json(connection, "POST", path, token=TOKEN)
    async with asyncio.timeout(PATIENCE):
        while (status := await ask_json(connection, "GET", path, token=TOKEN))["finished_at"] is None:  # noqa: ASYNC110 - of another process
            # Whoever asks takes his share of the machine, which the bare engine's side has for itself.
            await asyncio.sleep(0.2 if status["counts"]["queued"] else 0.03)
    connection.close()
    if status["counts"]["succeeded"] != jobs:
        raise RuntimeError(f"jobs failed: {status['reasons']}")


def process_cpu(pid: int) -> float:
    """Seconds that a process has used, without its children."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(measure)
