"""What people ask who look at the cluster: clusters of failures, distributions, lists, and those as they change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, ClassVar, TypeVar

from tornado.iostream import StreamClosedError

from broadway_api import json_text, wire
from broadway_api.domain import JobQuery, JobSort, JobState, Reason, RunState
from broadway_api.errors import Forbidden
from broadway_api.handlers.base import READERS, ApiHandler, refuse
from broadway_api.tenants import Role

#: Rows of a page at most, and characters that a search may have.
LARGEST_PAGE = 200
LONGEST_SEARCH = 200

Word = TypeVar("Word", RunState, JobState, JobSort, Reason)


class ViewHandler(ApiHandler):
    """What is asked by browsers too."""

    allowed: ClassVar = {"GET": READERS}
    by_session = ("GET",)

    def word(self, name: str, words: type[Word], text: str | None = None) -> Word | None:
        """One of an enum's words out of the query; None if it is not there. Raises InvalidInput."""
        text = self.get_query_argument(name, None) if text is None else text
        if text is None:
            return None
        if text not in tuple(words):
            refuse(name, f"{text[:40]!r} is none of {', '.join(words)}")
        return words(text)


class FailuresHandler(ViewHandler):
    """Why jobs of a run failed."""

    async def get(self, run_id: str) -> None:
        self.checked_id(run_id, "grading run id")
        causes, failed = await self.service.views.failures(run_id, by=self.principal)
        shown = [wire.cause_to_json(cause, worker_ids=self.principal.sees_worker_ids) for cause in causes]
        self.succeed({"failed": failed, "causes": shown})


class StatisticsHandler(ViewHandler):
    """How a run's durations and scores spread."""

    async def get(self, run_id: str) -> None:
        self.checked_id(run_id, "grading run id")
        seconds, scores = await self.service.views.distributions(run_id, by=self.principal)
        self.succeed(
            {"seconds": wire.distribution_to_json(seconds), "scores": wire.distribution_to_json(scores)},
        )


class FoundJobsHandler(ViewHandler):
    """Jobs of a run, searched and sorted."""

    async def get(self, run_id: str) -> None:
        self.checked_id(run_id, "grading run id")
        jobs, total = await self.service.views.jobs(
            run_id,
            self._query(),
            limit=self.integer_argument("limit", 50, least=1, most=LARGEST_PAGE) or 50,
            offset=self.integer_argument("offset", 0, least=0, most=2**31) or 0,
            by=self.principal,
        )
        shows_ids = self.principal.sees_worker_ids
        self.succeed({"jobs": [wire.found_job_to_json(job, worker_ids=shows_ids) for job in jobs], "total": total})

    def _query(self) -> JobQuery:
        search = self.get_query_argument("search", "").strip()
        if len(search) > LONGEST_SEARCH:
            refuse("search", f"longer than {LONGEST_SEARCH} characters")
        states = [
            self.word("states", JobState, word) for word in self.get_query_argument("states", "").split(",") if word
        ]
        order = self.get_query_argument("order", "ascending")
        if order not in ("ascending", "descending"):
            refuse("order", f"{order[:40]!r} is neither ascending nor descending")
        cause = self.get_query_argument("cause", None)
        return JobQuery(
            text=search,
            states=tuple(dict.fromkeys(state for state in states if state is not None)),
            reason=self.word("reason", Reason),
            cause=None if cause is None else cause[:1_000],
            sort=self.word("sort", JobSort) or JobSort.ROSTER,
            descending=order == "descending",
        )


class OverviewHandler(ViewHandler):
    """A list of what goes on in the cluster."""

    def looks(self, what: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        """How to look at it. Raises Forbidden, InvalidInput."""
        if what == "workers":
            if self.principal.role is not Role.OPERATOR:
                raise Forbidden(self.principal.role)
            return self._workers
        if what == "queue":
            return self._queue
        state = self.word("state", RunState)
        course = self.get_query_argument("course", None)
        after = self.get_query_argument("after", None)
        checked = None if after is None else self.checked_id(after, "after")
        limit = self.integer_argument("limit", 25, least=1, most=100) or 25

        async def runs() -> dict[str, Any]:
            listed = await self.service.views.runs(
                state=state, course=course, limit=limit + 1, after=checked, by=self.principal
            )
            return {
                "grading_runs": [wire.listed_run_to_json(run, counts) for run, counts in listed[:limit]],
                "next": listed[limit - 1][0].id if len(listed) > limit else None,
            }

        return runs

    async def _workers(self) -> dict[str, Any]:
        listed = await self.service.fleet.workers()
        return {"workers": [wire.worker_to_json(worker, jobs, state) for worker, jobs, state in listed]}

    async def _queue(self) -> dict[str, Any]:
        queues = await self.service.views.queue(by=self.principal)
        return {"courses": [wire.queue_to_json(course, *seen) for course, seen in queues.items()]}

    async def get(self, what: str) -> None:
        self.succeed(await self.looks(what)())


class OverviewEventsHandler(OverviewHandler):
    """The same as server-sent events."""

    async def get(self, what: str) -> None:
        look = self.looks(what)
        await self.while_connected(self._follow(what, look))

    async def _follow(self, what: str, look: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        async def encoded() -> bytes:
            return json_text.encode(await look())

        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        # The query says what is seen, and who asks how much of it.
        question = (what, self.principal, self.request.query)
        async with aclosing(self.service.views.follow(question, encoded)) as sights:
            async for sight in sights:
                self.write(
                    b": still here\n\n" if sight is None else f"event: {what}\ndata: ".encode() + sight + b"\n\n"
                )
                with suppress(StreamClosedError):  # its client has gone, which also cancels this
                    await self.flush()


_WHAT = "(runs|queue|workers)"

routes = [
    (r"/api/v1/grading_run/([^/]+)/failures", FailuresHandler),
    (r"/api/v1/grading_run/([^/]+)/statistics", StatisticsHandler),
    (r"/api/v1/grading_run/([^/]+)/jobs", FoundJobsHandler),
    (rf"/api/v1/overview/{_WHAT}", OverviewHandler),
    (rf"/api/v1/overview/{_WHAT}/events", OverviewEventsHandler),
]
