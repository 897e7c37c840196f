"""What courses call in the course protocol."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import ClassVar

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from broadway_api import json_text
from broadway_api.course_protocol import jobs, words
from broadway_api.course_protocol.shapes import GRADING_CONFIG, GRADING_RUN
from broadway_api.domain import Job, JobState, JobType, WorkerState
from broadway_api.errors import JobNotFound, RunNotFound
from broadway_api.handlers.base import CHANGERS, READERS, refuse
from broadway_api.handlers.course_protocol.base import NAME, CourseProtocolHandler, Unauthorized, bearers
from broadway_api.ids import is_id
from broadway_api.tenants import Principal, Role
from broadway_api.validation import Validator

#: Seconds after which a silent stream shows that it lives, and between two looks at whether this process is stopping.
KEEP_ALIVE = 20.0
_LOOK_UP = 1.0

_config = Validator(GRADING_CONFIG)
_run = Validator(GRADING_RUN)


class CourseHandler(CourseProtocolHandler):
    """A handler of a course's calls; the course comes first in its path."""

    #: Roles whose tokens of that course may call it; the operator may call everything.
    roles: ClassVar = CHANGERS

    @property
    def course(self) -> str:
        return str(self.path_args[0])

    async def admit(self) -> Principal:
        principals = await bearers(self.gate, self.request)
        if not await self.service.access.has_course(self.course):
            raise Unauthorized("course not found")
        for principal in principals:
            if principal.role is Role.OPERATOR or (principal.role in self.roles and principal.course == self.course):
                # Whoever asks here asks for this course alone.
                return Principal(role=Role.ADMIN, course=self.course)
        raise Unauthorized("invalid token")

    def run_id(self, text: str) -> str:
        """Raises RunNotFound for what cannot be a run's id."""
        if not is_id(text):
            raise RunNotFound(text)
        return text

    def job_id(self, text: str) -> str:
        """Raises JobNotFound for what cannot be a job's id."""
        if not is_id(text):
            raise JobNotFound(text)
        return text


class GradingConfigHandler(CourseHandler):
    """The configuration of an assignment."""

    async def post(self, course: str, assignment: str) -> None:
        config = await self.json_body(_config)
        if config is None:
            refuse("$", "the body is empty; send the configuration")
        await self.service.assignments.put(course, assignment, config)
        self.succeed({})

    async def get(self, course: str, assignment: str) -> None:
        self.succeed(await self.service.assignments.get(course, assignment))


class GradingRunHandler(CourseHandler):
    """A run of an assignment, which starts at once."""

    async def post(self, course: str, assignment: str) -> None:
        request = await self.json_body(_run)
        if request is None:
            refuse("$", "the body is empty; send students_env")
        run_id = await self.service.assignments.grade(course, assignment, request, by=self.principal)
        self.succeed({"grading_run_id": run_id})


class GradingRunStatusHandler(CourseHandler):
    """How a run is doing."""

    roles: ClassVar = READERS

    async def get(self, _: str, run_id: str) -> None:
        whole = await self.service.assignments.whole_run(self.run_id(run_id), by=self.principal)
        self.succeed(
            {
                "state": words.RUN[whole.run.state],
                "pre_processing_job_state": _states(whole.of_type(JobType.PRE_PROCESSING)) or None,
                "post_processing_job_state": _states(whole.of_type(JobType.POST_PROCESSING)) or None,
                "student_jobs_state": _states(whole.of_type(JobType.STUDENT)),
            }
        )


class GradingRunEnvHandler(CourseHandler):
    """What the environments of a run's jobs are."""

    async def get(self, _: str, run_id: str) -> None:
        envs = await self.service.assignments.envs(self.run_id(run_id), by=self.principal)
        self.succeed(
            {
                "pre_processing_env": envs[JobType.PRE_PROCESSING],
                "post_processing_env": envs[JobType.POST_PROCESSING],
                "student_env": envs[JobType.STUDENT],
            }
        )


class GradingJobLogHandler(CourseHandler):
    """What a job printed."""

    async def get(self, _: str, job_id: str) -> None:
        logs = await self.service.assignments.log(self.job_id(job_id), by=self.principal)
        self.succeed(jobs.log_text(logs))


class CourseWorkersHandler(CourseHandler):
    """The fleet, as far as a course may see it."""

    async def get(self, _: str, scope: str) -> None:
        if scope != "all":
            raise HTTPError(404)
        self.succeed(
            {
                "worker_nodes": [
                    {
                        "hostname": worker.hostname,
                        "jobs_processed": worker.jobs_processed,
                        "busy": bool(running),
                        "alive": state is not WorkerState.LOST,
                    }
                    for worker, running, state in await self.service.fleet.workers()
                ]
            }
        )


class QueueLengthHandler(CourseHandler):
    """How many jobs of a course are queued."""

    roles: ClassVar = READERS

    async def get(self, course: str) -> None:
        self.succeed({"length": await self.service.assignments.queue_length(course)})


class QueuePositionHandler(CourseHandler):
    """How many jobs stand before one that is queued."""

    roles: ClassVar = READERS

    async def get(self, _: str, job_id: str) -> None:
        self.succeed({"position": await self.service.assignments.position(self.job_id(job_id), by=self.principal)})


class StreamHandler(CourseHandler):
    """A job's states and positions as server-sent events."""

    roles: ClassVar = READERS

    async def get(self, _: str, job_id: str) -> None:
        self.job_id(job_id)
        await self.while_connected(self._follow(job_id))

    async def _follow(self, job_id: str) -> None:
        heard: asyncio.Queue[tuple[str, str | int] | None] = asyncio.Queue()

        async def listen() -> None:
            try:
                async with aclosing(self.service.assignments.follow(job_id, by=self.principal)) as events:
                    async for event in events:
                        heard.put_nowait(event)
            finally:
                heard.put_nowait(None)

        listening = asyncio.create_task(listen())
        try:
            await self._tell(heard)
            if listening.done():
                await listening  # it may have found that there is no such job
        finally:
            listening.cancel()

    async def _tell(self, heard: asyncio.Queue[tuple[str, str | int] | None]) -> None:
        """Write what is heard, until it ends or this process does; now and then a comment, where nothing is."""
        silent = 0.0
        while not self.service.wake_ups.closed:
            try:
                async with asyncio.timeout(_LOOK_UP):
                    event = await heard.get()
            except TimeoutError:
                silent += _LOOK_UP
                if silent < KEEP_ALIVE:
                    continue
                text = ":\n\n"
            else:
                if event is None:
                    return
                kind, value = event
                data = json_text.encode({"type": kind, "data": value}).decode()
                text = f"event: status_update\ndata: {data}\n\n"
            silent = 0.0
            self.set_header("Content-Type", "text/event-stream; charset=utf-8")
            self.write(text)
            with suppress(StreamClosedError):  # its client has gone, which also cancels this
                await self.flush()


def _states(of: list[Job]) -> dict[str, str]:
    """Those that have been scheduled; a job of a phase to come is nobody's business yet."""
    return {job.id: words.JOB[job.state] for job in of if job.state is not JobState.WAITING}


routes = [
    (rf"/api/v1/grading_config/({NAME})/({NAME})", GradingConfigHandler),
    (rf"/api/v1/grading_run/({NAME})/({NAME})", GradingRunHandler),
    (rf"/api/v1/grading_run_status/({NAME})/({NAME})", GradingRunStatusHandler),
    (rf"/api/v1/grading_run_env/({NAME})/({NAME})", GradingRunEnvHandler),
    (rf"/api/v1/grading_job_log/({NAME})/({NAME})", GradingJobLogHandler),
    (rf"/api/v1/worker/({NAME})/([^()/]+)", CourseWorkersHandler),
    (rf"/api/v1/queue/({NAME})/length", QueueLengthHandler),
    (rf"/api/v1/queue/({NAME})/({NAME})/position", QueuePositionHandler),
    (rf"/api/v1/stream/({NAME})/({NAME})", StreamHandler),
]
