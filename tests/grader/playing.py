"""A worker whose jobs run for as long as a test wants, and the answers that bring it those."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from broadway_grader.client import ApiClient
from broadway_grader.delivery import Delivery
from broadway_grader.domain import Job, JobResult, Output, Reason, StageResult, failed_result
from broadway_grader.recovery import Recovery
from broadway_grader.registration import Membership, WorkerDetails
from broadway_grader.retry import Backoff
from broadway_grader.spool import Spool
from broadway_grader.worker import Worker
from broadway_grader.worker_ids import WorkerIds
from tests.grader.fake_api import Reply, success
from tests.grader.stages import until

FIRST, SECOND = f"{1:024d}", f"{2:024d}"  # the worker ids that the fake API gives, in this order
QUICK = Backoff(first=0.01, longest=0.05)
NOW = datetime(2026, 1, 31, tzinfo=UTC)


class Runner:
    """Runs a job until it is told to end it, and removes what is left of it once it may."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[str, int], asyncio.Event] = {}
        self.killed: list[tuple[str, int]] = []
        self.output = ""
        self.may_remove = asyncio.Event()
        self.may_remove.set()

    @contextlib.asynccontextmanager
    async def running(self, job: Job) -> AsyncIterator[JobResult]:
        ended = self.jobs[job.job_id, job.attempt] = asyncio.Event()
        try:
            await ended.wait()
        except asyncio.CancelledError:
            self.killed.append((job.job_id, job.attempt))
            raise
        finally:
            del self.jobs[job.job_id, job.attempt]
        try:
            yield self._result(job)
        finally:
            await self.may_remove.wait()

    def _result(self, job: Job) -> JobResult:
        stage = StageResult(
            started_at=NOW, finished_at=NOW, runtime="docker", exit_code=0, stdout=Output(text=self.output)
        )
        return JobResult(job_id=job.job_id, attempt=job.attempt, stages=[stage])

    def failure(self, job_id: str, attempt: int, message: str) -> JobResult:
        return failed_result(job_id, attempt, reason=Reason.RUNTIME_ERROR, message=message, runtime="docker", now=NOW)

    def end(self, number: int, attempt: int = 1) -> None:
        self.jobs[job_id(number), attempt].set()


class Grader:
    """A worker of two slots, run as a task."""

    def __init__(self, client: ApiClient, directory: Path, backoff: Backoff = QUICK) -> None:
        """A new life of the grader whose spool and worker ids are in `directory`."""
        details = WorkerDetails(hostname="here", slots=2, runtime="docker", version="1", labels={})
        self.runner = Runner()
        self.spool, ids = Spool(directory / "spool"), WorkerIds(directory / "workers")
        self.spool.open()
        self.membership = Membership(client, details, ids, backoff)
        delivery = Delivery(client, self.membership, self.spool, backoff)
        recovery = Recovery(client, delivery, ids, backoff, results=self.spool.load(), worker_ids=ids.load())
        self.worker = Worker(
            client,
            self.membership,
            self.runner,  # type: ignore[arg-type]  # the part of a JobRunner that a worker uses
            delivery,
            self.spool,
            recovery,
            slots=2,
            poll_wait=1,
            backoff=backoff,
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        self.task = asyncio.create_task(self.worker.run())
        return self.task


def job_id(number: int) -> str:
    return f"{number:024x}"


def jobs(*numbers: int, attempt: int = 1) -> Reply:
    return success(
        jobs=[{"job_id": job_id(number), "attempt": attempt, "stages": [{"image": "i"}]} for number in numbers]
    )


def with_jobs(reported: int, *numbers: int) -> Reply:
    """The answer to a result that brings new jobs."""
    brought = [{"job_id": job_id(number), "attempt": 1, "stages": [{"image": "i"}]} for number in numbers]
    return success(job_id=job_id(reported), state="succeeded", jobs=brought)


async def running(grader: Grader, *numbers: int) -> None:
    wanted = {job_id(number) for number in numbers}
    await until(lambda: {job for job, _ in grader.runner.jobs} == wanted, f"jobs {numbers} to run")
