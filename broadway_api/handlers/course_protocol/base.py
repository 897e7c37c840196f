"""What the handlers of the course protocol share: its tokens, its status codes, and browsers from everywhere."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import ClassVar

from tornado.httputil import HTTPServerRequest
from tornado.routing import PathMatches
from tornado.web import HTTPError

from broadway_api.course_protocol import jobs
from broadway_api.errors import ClaimLost, NotFound, UnknownWorker
from broadway_api.handlers.base import STATUS_CODES, ApiHandler
from broadway_api.handlers.gate import Gate
from broadway_api.ids import is_id
from broadway_api.tenants import Principal, Role

#: What courses and workers may be called.
NAME = r"[-\w]+"

_BEARER = re.compile(r"Bearer ([^ ]+)")

GRADERS = frozenset({Role.OPERATOR, Role.WORKER})


class Unauthorized(HTTPError):
    """Refused for want of a token, in this protocol's words."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(401)


class CourseProtocolHandler(ApiHandler):
    """A handler of this protocol. Whoever may use it is its own to say."""

    is_public = True

    # What is not there is a 400 here, and so is a job that is not the worker's.
    status_codes: ClassVar = ((UnknownWorker, 401), (NotFound, 400), (ClaimLost, 400), *STATUS_CODES)

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Access-Control-Allow-Origin", "*")

    async def options(self, *_: str) -> None:
        """Answer a browser that asks whether it may ask."""
        self.set_header("Access-Control-Allow-Headers", "Authorization")
        self.set_status(204)

    async def check_head(self) -> None:
        await super().check_head()
        if self.request.method != "OPTIONS":
            self._principal = await self.admit()

    async def admit(self) -> Principal:
        """Who asks. Raises Unauthorized."""
        raise NotImplementedError

    def _message(self, status_code: int, error: BaseException | None) -> str:
        if isinstance(error, Unauthorized):
            return error.message
        if isinstance(error, UnknownWorker):
            return "worker not found"
        return super()._message(status_code, error)


class GraderHandler(CourseProtocolHandler):
    """A handler of graders' calls."""

    async def admit(self) -> Principal:
        return await admitted(self.gate, self.request, GRADERS)


async def give_job(handler: ApiHandler, name: str) -> None:
    """Answer a worker that asks for work."""
    handout = await handler.while_connected(handler.service.named_workers.poll(name, by=handler.principal))
    if handout is None:
        handler.fail(handler.queue_empty_code, "no jobs available")
    else:
        handler.succeed(jobs.handout(handout.job, handout.plan.config, handout.envs, over_websocket=False))


async def admitted(gate: Gate, request: HTTPServerRequest, roles: Collection[Role]) -> Principal:
    """The one of these roles whose token the request has. Raises Unauthorized."""
    for principal in await bearers(gate, request):
        if principal.role in roles:
            return principal
    raise Unauthorized("invalid token")


async def bearers(gate: Gate, request: HTTPServerRequest) -> tuple[Principal, ...]:
    """Whoever the request's token stands for, perhaps nobody. Raises Unauthorized if it is not in the right form."""
    given = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if given is None:
        raise Unauthorized("invalid token format")
    try:
        return await gate.admit(given[1], request)
    except HTTPError as error:
        if error.status_code != 401:
            raise
        return ()


class NotOurs(PathMatches):
    """Matches those requests to a path that are this protocol's, where another handler has the others.

    `POST grading_job/{x}` has a worker's id in a header in ours, and none in this one; `GET grading_job/{x}` asks for a
    job by an id of our making, or for work by one that a grader chose; `worker/{x}` is left by DELETE, and entered here
    by POST.
    """

    def match(self, request: HTTPServerRequest) -> dict[str, object] | None:
        found: dict[str, object] | None = super().match(request)
        return found if found is not None and _is_of_course_protocol(request) else None


def _is_of_course_protocol(request: HTTPServerRequest) -> bool:
    if request.method == "OPTIONS" or request.path.startswith("/api/v1/worker/"):
        return request.method in ("OPTIONS", "POST")
    authorization = request.headers.get("Authorization", "")
    if authorization and not authorization.startswith("Bearer"):
        return False
    if request.method == "POST":
        return not ("worker_id" in request.headers or "Worker-Id" in request.headers)
    return request.method == "GET" and not is_id(request.path.rpartition("/")[2])
