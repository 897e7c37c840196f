"""What jobs print: posted by graders while it is printed, read or followed by courses."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import ClassVar, cast

from tornado.iostream import StreamClosedError

from broadway_api import json_text, live_wire, wire
from broadway_api.domain import Claim
from broadway_api.errors import Fault, InvalidInput
from broadway_api.handlers.base import READERS, ApiHandler, WorkerHandler, refuse
from broadway_api.http1.exchange import Exchange
from broadway_api.live_tail import Reading
from broadway_api.schemas import OUTPUT
from broadway_api.validation import Validator

logger = logging.getLogger(__name__)

_output = Validator(OUTPUT)

#: Seconds that a follower may take to read an event.
PATIENCE = 60.0


class OutputHandler(WorkerHandler):
    """What a running job prints."""

    largest_body = 1_048_576

    async def post(self, job_id: str) -> None:
        data = await self.json_body(_output, mend_text=True)
        if data is None:
            raise InvalidInput([Fault(path="$", message="the body is empty; send the attempt")])
        claim = Claim(
            job_id=self.checked_id(job_id, "grading job id"), worker_id=self.worker_id, attempt=int(data["attempt"])
        )
        pieces, stages = live_wire.output_from_json(data)
        self.succeed({"followed": await self.service.live_output.take(claim, pieces, stages, by=self.principal)})


class LogHandler(ApiHandler):
    """What a job printed: its log, or as server-sent events from now on until the job has ended."""

    allowed: ClassVar = {"GET": READERS}
    by_session = ("GET",)

    async def get(self, job_id: str) -> None:
        stage = self.integer_argument("stage", None, least=0, most=1_000)
        follow = self.get_query_argument("follow", "false")
        if follow not in ("true", "false"):
            refuse("follow", f"{follow[:40]!r} is neither true nor false")
        self.checked_id(job_id, "grading job id")
        if follow == "true":
            await self.while_connected(self._follow(job_id, stage))
        else:
            job, logs = await self.service.runs.job_log(job_id, stage, by=self.principal)
            self.succeed(wire.logs_to_json(job, logs))

    async def _follow(self, job_id: str, stage: int | None) -> None:
        last = Reading.parse(self.request.headers.get("Last-Event-ID"))
        events = self.service.live_output.follow(job_id, last, stage, by=self.principal)
        self.set_status(204)  # unless there is an event to tell: an EventSource that gets this does not come back
        async with aclosing(events):
            async for told in events:
                self.set_status(200)
                self.set_header("Content-Type", "text/event-stream; charset=utf-8")
                self.set_header("X-Accel-Buffering", "no")  # nginx would keep events back until it has many
                if told is None:
                    self.write(": still here\n\n")
                else:
                    name, data = live_wire.event_to_json(told)
                    self.write(f"id: {told.reading}\nevent: {name}\ndata: {json_text.encode(data).decode()}\n\n")
                if not await self._sent():
                    return

    async def _sent(self) -> bool:
        """Whether what was written is on its way. Who reads nothing for too long is hung up on."""
        try:
            async with asyncio.timeout(PATIENCE):
                with suppress(StreamClosedError):  # its client has gone, which also cancels this
                    await self.flush()
        except TimeoutError:
            logger.info("hanging up on a follower of %s that reads nothing", self.request.path)
            cast(Exchange, self.request.connection).hang_up()
            return False
        return True


routes = [
    (r"/api/v1/grading_job/([^/]+)/output", OutputHandler),
    (r"/api/v1/grading_job/([^/]+)/log", LogHandler),
]
