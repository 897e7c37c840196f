"""What courses call: create, start and follow grading runs."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import ClassVar

from tornado.iostream import StreamClosedError

from broadway_api import intake, json_text, wire
from broadway_api.domain import JobState, RunState
from broadway_api.handlers.base import CHANGERS, READERS, ApiHandler, refuse
from broadway_api.schemas import MAX_PRIORITY, MIN_PRIORITY, RETRY
from broadway_api.validation import Validator

_retry = Validator(RETRY)

#: Words for `?jobs=` beside the states themselves.
_JOB_SETS = {
    "all": tuple(JobState),
    "unfinished": tuple(state for state in JobState if not state.ended),
}


class RunsHandler(ApiHandler):
    """All runs."""

    allowed: ClassVar = {"POST": CHANGERS, "GET": READERS}
    by_session = ("GET",)

    async def post(self) -> None:
        body = self.body()
        priority = self.integer_argument("priority", None, least=MIN_PRIORITY, most=MAX_PRIORITY)
        key = intake.idempotency_key(self.request.headers.get("Idempotency-Key"), body, priority=priority)
        course = self.course_argument()
        run_id = await self.service.runs.create(body, key, course=course, priority=priority, by=self.principal)
        self.succeed({"grading_run_id": run_id})

    async def get(self) -> None:
        state = self.get_query_argument("state", None)
        if state is not None and state not in tuple(RunState):
            refuse("state", f"{state[:40]!r} is none of {', '.join(RunState)}")
        after = self.get_query_argument("after", None)
        limit = self.integer_argument("limit", 100, least=1, most=1_000) or 1
        runs = await self.service.runs.newest(
            state=None if state is None else RunState(state),
            course=self.course_argument(),
            limit=limit + 1,
            after=None if after is None else self.checked_id(after, "after"),
            by=self.principal,
        )
        page = runs[:limit]
        self.succeed(
            {
                "grading_runs": [wire.run_to_json(run) for run in page],
                "next": page[-1].id if len(runs) > limit else None,
            }
        )


class RunHandler(ApiHandler):
    """One run."""

    allowed: ClassVar = {"POST": CHANGERS, "GET": READERS}
    by_session = ("GET", "POST")

    async def post(self, run_id: str) -> None:
        state = await self.service.runs.start(self.checked_id(run_id, "grading run id"), by=self.principal)
        self.succeed({"grading_run_id": run_id, "state": state})

    async def get(self, run_id: str) -> None:
        states = self._wanted_jobs()
        limit = self.integer_argument("limit", 100, least=1, most=1_000) or 1
        after = self.integer_argument("after", None, least=0, most=2**31)
        summary = await self.service.runs.summary(self.checked_id(run_id, "grading run id"), by=self.principal)
        data = wire.summary_to_json(summary)
        if states:
            jobs = await self.service.runs.jobs(run_id, states=states, limit=limit + 1, after=after, by=self.principal)
            data["jobs"] = [wire.job_to_json(job, worker_ids=self.principal.sees_worker_ids) for job in jobs[:limit]]
            data["next"] = str(jobs[limit - 1].seq) if len(jobs) > limit else None
        self.succeed(data)

    def _wanted_jobs(self) -> tuple[JobState, ...]:
        word = self.get_query_argument("jobs", None)
        if word is None:
            return ()
        if word in _JOB_SETS:
            return _JOB_SETS[word]
        if word not in tuple(JobState):
            refuse("jobs", f"{word[:40]!r} is none of {', '.join([*_JOB_SETS, *JobState])}")
        return (JobState(word),)


class CancelHandler(ApiHandler):
    """The end of a run, now."""

    allowed: ClassVar = {"POST": CHANGERS}
    by_session = ("POST",)

    async def post(self, run_id: str) -> None:
        state = await self.service.runs.cancel(self.checked_id(run_id, "grading run id"), by=self.principal)
        self.succeed({"grading_run_id": run_id, "state": state})


class RetryHandler(ApiHandler):
    """Another try for jobs of a run that has ended."""

    allowed: ClassVar = {"POST": CHANGERS}
    by_session = ("POST",)

    async def post(self, run_id: str) -> None:
        wanted = await self.json_body(_retry) or {}
        number = await self.service.runs.retry(
            self.checked_id(run_id, "grading run id"), wanted.get("students"), by=self.principal
        )
        self.succeed({"grading_run_id": run_id, "jobs": number})


class EventsHandler(ApiHandler):
    """A run as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    allowed: ClassVar = {"GET": READERS}
    by_session = ("GET",)

    async def get(self, run_id: str) -> None:
        self.checked_id(run_id, "grading run id")
        await self.while_connected(self._follow(run_id))

    async def _follow(self, run_id: str) -> None:
        events = self.service.runs.events(run_id, self.request.headers.get("Last-Event-ID"), by=self.principal)
        self.set_status(204)  # unless there is an event to tell: an EventSource that gets this does not come back
        async with aclosing(events):
            async for event in events:
                self.set_status(200)
                self.set_header("Content-Type", "text/event-stream; charset=utf-8")
                if event is None:
                    self.write(": still here\n\n")
                else:
                    version, summary = event
                    data = json_text.encode(wire.summary_to_json(summary)).decode()
                    self.write(f"id: {version}\nevent: run\ndata: {data}\n\n")
                with suppress(StreamClosedError):  # its client has gone, which also cancels this
                    await self.flush()


class DeliveriesHandler(ApiHandler):
    """What a webhook is told of a run, and whether it hears."""

    allowed: ClassVar = {"GET": READERS}

    async def get(self, run_id: str) -> None:
        found = await self.service.runs.deliveries(self.checked_id(run_id, "grading run id"), by=self.principal)
        self.succeed({"deliveries": [wire.delivery_to_json(delivery) for delivery in found]})


routes = [
    (r"/api/v1/grading_run", RunsHandler),
    (r"/api/v1/grading_run/([^/]+)", RunHandler),
    (r"/api/v1/grading_run/([^/]+)/cancel", CancelHandler),
    (r"/api/v1/grading_run/([^/]+)/retry", RetryHandler),
    (r"/api/v1/grading_run/([^/]+)/events", EventsHandler),
    (r"/api/v1/grading_run/([^/]+)/deliveries", DeliveriesHandler),
]
