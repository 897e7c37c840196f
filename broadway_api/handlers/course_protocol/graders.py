"""What graders of the course protocol call over HTTP. They choose their own ids."""

from __future__ import annotations

from tornado.routing import PathMatches

from broadway_api.course_protocol import jobs
from broadway_api.course_protocol.shapes import JOB_RESULT, WORKER
from broadway_api.errors import UnknownWorker
from broadway_api.handlers.base import refuse
from broadway_api.handlers.course_protocol.base import NAME, GraderHandler, NotOurs, give_job
from broadway_api.validation import Validator

_worker = Validator(WORKER)
_result = Validator(JOB_RESULT)
_object = Validator({"type": "object"})


class WorkerHandler(GraderHandler):
    """The door to the cluster."""

    async def post(self, name: str) -> None:
        data = await self.json_body(_worker)
        if data is None:
            refuse("$", "the body is empty; send the hostname")
        await self.service.named_workers.register(name, data["hostname"], by=self.principal)
        self.succeed({"heartbeat": self.service.policy.heartbeat_interval})


class GradingJobHandler(GraderHandler):
    """The queue's end, and what came of a job."""

    async def get(self, name: str) -> None:
        await give_job(self, name)

    async def post(self, name: str) -> None:
        report = await self.json_body(_object, mend_text=True) or {}
        if "grading_job_id" not in report:
            raise UnknownWorker(None)  # a result in our own protocol, whose sender forgot to say who it is
        _result.check(report)
        job_id = report["grading_job_id"]
        await self.service.named_workers.finish(name, job_id, jobs.result(report), by=self.principal)
        self.succeed({})


class HeartbeatHandler(GraderHandler):
    """A worker lives, and so does its job."""

    async def post(self, name: str) -> None:
        await self.service.named_workers.heartbeat(name, by=self.principal)
        self.succeed({})


routes: list[tuple[str | PathMatches, type[GraderHandler]]] = [
    (NotOurs(rf"/api/v1/worker/({NAME})$"), WorkerHandler),
    (NotOurs(rf"/api/v1/grading_job/({NAME})$"), GradingJobHandler),
    (rf"/api/v1/heartbeat/({NAME})", HeartbeatHandler),
]
