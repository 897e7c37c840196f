"""One job from its inputs to its result: the stages in order, up to the first that fails."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime

from broadway_grader.bounding import run_bounded
from broadway_grader.clock import utc_now
from broadway_grader.domain import Job, JobResult, Reason, Stage, StageResult, failed_result
from broadway_grader.ending import Ending
from broadway_grader.live_output import LiveJob, LiveOutput
from broadway_grader.masking import Mask
from broadway_grader.runtimes.port import OnOutput, Place, Runtime
from broadway_grader.sealing import run_sealed
from broadway_grader.workspace import WorkDirectory, Workspace

log = logging.getLogger(__name__)

ROSTER = "roster.json"
JOBS = "jobs.json"

#: Bytes of a results.json, unless the configuration says otherwise.
MAX_RESULTS_BYTES = 1024 * 1024


class JobRunner:
    """Runs jobs, as many at once as there are slots, each in a /job directory and a slot of its own."""

    def __init__(
        self,
        runtime: Runtime,
        directory: WorkDirectory,
        *,
        slots: int,
        now: Callable[[], datetime] = utc_now,
        max_results_bytes: int = MAX_RESULTS_BYTES,
        live: LiveOutput | None = None,
    ) -> None:
        """`live`: what sends their output to those who follow them."""
        self._runtime = runtime
        self._directory = directory
        self._max_results_bytes = max_results_bytes
        self._now = now
        self._live = live or LiveOutput(is_on=False)
        self._free_slots: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()
        for slot in range(slots):
            self._free_slots.put_nowait(slot)

    async def run(self, job: Job) -> JobResult:
        """Run a job to its end; whatever goes wrong is in the result. Being cancelled kills the stage that runs.

        Nothing of the job is left on this machine when this returns or raises, and none of its secrets is in the
        result.
        """
        async with self.running(job) as result:
            return result

    @contextlib.asynccontextmanager
    async def running(self, job: Job) -> AsyncIterator[JobResult]:
        """The same, for who has something to do meanwhile: the block begins with the result, and ends with the removal.

        Processes of the job are all gone when there is a result; its last container and its /job may not be.
        """
        remains = contextlib.AsyncExitStack()
        try:
            result = await self._run(job, remains)
        except asyncio.CancelledError:
            await _to_its_end(self._remove(job, remains))
            raise
        removing = asyncio.create_task(self._remove(job, remains), name=f"removing what is left of job {job.job_id}")
        try:
            # Before anything else sees the result, the disk included; a large one would hold up the heartbeats.
            mask = Mask.of(job)
            yield await asyncio.to_thread(mask.result, result) if mask else result
        finally:
            await _to_its_end(removing)

    async def _run(self, job: Job, remains: contextlib.AsyncExitStack) -> JobResult:
        try:
            workspace = await remains.enter_async_context(self._directory.workspace(job.job_id))
            slot = await remains.enter_async_context(self._slot())
            await self._place_inputs(job, workspace)
            with self._live.running(job) as live:
                stages = await self._run_stages(job, workspace, slot, live)
        except Exception as error:
            # A disk that is full, or a fault of ours: this job has failed, the others and the grader have not.
            log.exception("job %s attempt %d failed outside of its stages", job.job_id, job.attempt)
            return self.failure(job.job_id, job.attempt, f"the grader failed: {error}")
        return JobResult(job_id=job.job_id, attempt=job.attempt, stages=stages)

    @staticmethod
    async def _remove(job: Job, remains: contextlib.AsyncExitStack) -> None:
        try:
            await remains.aclose()
        except Exception:
            log.exception("what is left of job %s attempt %d was not all removed", job.job_id, job.attempt)

    def failure(self, job_id: str, attempt: int, message: str) -> JobResult:
        """The result of a job that failed without a fault of its stages."""
        return failed_result(
            job_id,
            attempt,
            reason=Reason.RUNTIME_ERROR,
            message=message,
            runtime=self._runtime.name,
            now=self._now(),
        )

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[int]:
        """The lowest slot that is free: of its user there is no process and no container but this job's."""
        slot = await self._free_slots.get()
        try:
            yield slot
        finally:
            try:
                await self._runtime.release(slot)
            finally:
                self._free_slots.put_nowait(slot)

    @staticmethod
    async def _place_inputs(job: Job, workspace: Workspace) -> None:
        if job.students is not None:
            students = job.students
            # A large roster takes a while to write as JSON, and heartbeats must not wait for it.
            await asyncio.to_thread(lambda: workspace.write_input(ROSTER, json.dumps(students).encode()))
            if job.student_jobs is not None:
                await asyncio.to_thread(lambda: workspace.write_input(JOBS, _report(job).encode()))

    async def _run_stages(self, job: Job, workspace: Workspace, slot: int, live: LiveJob) -> list[StageResult]:
        results: list[StageResult] = []
        for index, (stage, following) in enumerate(itertools.zip_longest(job.stages, job.stages[1:])):
            place = Place(job_id=job.job_id, attempt=job.attempt, stage=index, slot=slot, directory=workspace.path)
            live.begin(index)
            hear = functools.partial(live.hear, index)
            run = functools.partial(self._run_stage, stage, place, on_output=hear, following=following)
            result = await run_bounded(run, workspace)
            live.end(index, result)
            results.append(result)
            log.info(
                "job %s attempt %d stage %d ended: exit code %s, reason %s",
                job.job_id,
                job.attempt,
                index,
                result.exit_code,
                result.reason,
            )
            if result.reason is not None:
                break
        return results

    async def _run_stage(
        self, stage: Stage, place: Place, ending: Ending, on_output: OnOutput, following: Stage | None
    ) -> StageResult:
        if not stage.results:
            return await self._runtime.run_stage(stage, place, ending, on_output, following=following)
        return await run_sealed(
            self._runtime,
            stage,
            place,
            ending,
            on_output,
            following=following,
            max_bytes=self._max_results_bytes,
            now=self._now,
        )


async def _to_its_end(work: Coroutine[None, None, None] | asyncio.Task[None]) -> None:
    """Await something that must be whole, also if we are cancelled meanwhile."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


def _report(job: Job) -> str:
    """How the student jobs ended, each with its student."""
    ended = zip(job.students or (), job.student_jobs or (), strict=True)
    return json.dumps([{"student": student, **entry} for student, entry in ended])
