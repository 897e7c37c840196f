"""What all handlers share: the envelope, authorization, bodies read within bounds, errors as answers.

A handler authorises (`prepare` does it), parses, calls one use case, and writes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NoReturn

from tornado.httputil import HTTPServerRequest
from tornado.web import Finish, HTTPError, RequestHandler, stream_request_body

from broadway_api import auth, ids, json_text
from broadway_api.errors import (
    ClaimLost,
    Fault,
    Forbidden,
    IdempotencyMismatch,
    InvalidInput,
    NotFound,
    NotJson,
    Rejected,
    StoreError,
    TooManyFollowers,
    UnknownWorker,
)
from broadway_api.handlers.bodies import BodyTaking
from broadway_api.handlers.gate import COOKIE, NotOurPage, TooManyFailures
from broadway_api.handlers.shared import Shared
from broadway_api.tenants import Principal, Role

logger = logging.getLogger(__name__)

#: Characters of a path with its query: those of a poll that names 1,024 jobs.
LONGEST_TARGET = 30_000

#: What each refusal is in HTTP; the first class that fits. Any other refusal is a 400.
STATUS_CODES: tuple[tuple[type[Exception], int], ...] = (
    (UnknownWorker, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (ClaimLost, 409),
    (IdempotencyMismatch, 422),
    (TooManyFollowers, 429),
    (Rejected, 400),
    (StoreError, 503),
)

_WHOLE_NUMBER = re.compile(r"-?[0-9]+")

#: Seconds after which a client may try again when the store could not be reached, or there is no room.
RETRY_AFTER = 5


#: Roles that a method may be open to, beside the operator's.
WORKERS = frozenset({Role.WORKER})
READERS = frozenset({Role.ADMIN, Role.QUERY})
CHANGERS = frozenset({Role.ADMIN})


@stream_request_body
class ApiHandler(BodyTaking):
    """A handler of one path."""

    #: Whether no token is asked for.
    is_public: ClassVar[bool] = False

    #: Method → the roles whose tokens may use it, beside the operator's, which may do everything.
    allowed: ClassVar[Mapping[str, frozenset[Role]]] = {}

    #: Methods that a browser with a session may use, in place of a token. None that is a grader's: some of those
    #: change something though they are a GET.
    by_session: ClassVar[tuple[str, ...]] = ()

    #: What each refusal is in HTTP; the first class that fits.
    status_codes: ClassVar[Sequence[tuple[type[Exception], int]]] = STATUS_CODES

    #: Whether nobody is there any more to be answered.
    client_has_gone = False

    _answered_in_place = False
    _principal: Principal | None = None
    _work: asyncio.Future[Any] | None = None

    def initialize(self, shared: Shared) -> None:
        """Take what `make_app` gives to all handlers."""
        self.service = shared.service
        self.gate = shared.gate
        self.monitor = shared.monitor
        self.metrics_are_open = shared.limits.open_metrics
        self.queue_empty_code = shared.limits.queue_empty_code
        self._requests = shared.requests
        self.take_limits(shared.limits)

    # --- before the body ----------------------------------------------------------------------------------------

    def compute_etag(self) -> None:
        """None: answers are small, often change, and hashing them costs more than sending them."""

    async def prepare(self) -> None:
        self._requests.opened(self)
        if len(self.request.uri or "") > LONGEST_TARGET:
            raise HTTPError(414)
        await self.check_head()
        self.begin_body()

    async def check_head(self) -> None:
        """Refuse on the headers alone what can be refused on them."""
        if not self.is_public:
            self._principal = self._one_of(await self._enter())
        self.check_announced_length()

    async def _enter(self) -> Sequence[Principal]:
        by_session = self.request.method in self.by_session and "Authorization" not in self.request.headers
        if by_session and COOKIE in self.request.cookies:
            return (await self.gate.enter_by_session(self.request)).principals
        return await self.gate.enter(self.request)

    @property
    def principal(self) -> Principal:
        """Who sent the request. Not to be asked where nobody has to say."""
        if self._principal is None:
            raise RuntimeError(f"{self.request.path} is public")
        return self._principal

    def _one_of(self, principals: Sequence[Principal]) -> Principal:
        """Who of those that the token stands for asks here. Raises Forbidden, InvalidInput."""
        method = self.request.method or ""
        if method not in self._methods():
            return principals[0]  # to be told that there is no such method
        roles = self.allowed.get(method, frozenset()) | {Role.OPERATOR}
        fit = [principal for principal in principals if principal.role in roles]
        if not fit:
            raise Forbidden(principals[0].role)
        if len(fit) > 1:
            named = self.get_query_argument("course", None)
            fit = [principal for principal in fit if principal.course == named] or fit
        if len(fit) > 1:
            refuse("course", f"this token belongs to several courses: name one of {_courses(fit)}")
        return fit[0]

    def on_finish(self) -> None:
        self.stop_watching()
        self._requests.ended(self)

    def on_connection_close(self) -> None:
        super().on_connection_close()  # it ends the wait for the rest of the body
        self.client_has_gone = True
        self.stop_watching()
        self._requests.ended(self)
        if self._work is not None:
            self._work.cancel()

    async def while_connected(self, work: Awaitable[Any]) -> Any:
        """Wait for `work`, but not longer than the client does: what nobody waits for must not take a job."""
        self._work = asyncio.ensure_future(work)
        if self.client_has_gone:
            self._work.cancel()
        try:
            return await self._work
        except asyncio.CancelledError:
            raise Finish from None

    # --- arguments ----------------------------------------------------------------------------------------------

    def checked_id(self, text: str, what: str) -> str:
        """An id out of a path, header or query. Raises InvalidInput if it has not the form of one."""
        if not ids.is_id(text):
            refuse(what, f"{text[:80]!r} is no id: 24 hexadecimal digits in lower case")
        return text

    def course_argument(self) -> str | None:
        """The course that the query names, if it does. Raises InvalidInput for one that nobody can have."""
        course = self.get_query_argument("course", None, strip=False)
        if course == "":
            refuse("course", "it is empty; name a course, or leave it out")
        return course and (course.strip() or course)  # one of blanks alone is a name, though nobody's

    def integer_argument(self, name: str, default: int | None, *, least: int, most: int) -> int | None:
        """A whole number out of the query. Raises InvalidInput if it is none, or out of its range."""
        text = self.get_query_argument(name, None)
        if text is None:
            return default
        # Its length first: Python converts no more than 4,300 digits.
        if len(text) > 20 or not _WHOLE_NUMBER.fullmatch(text) or not least <= int(text) <= most:
            refuse(name, f"{text[:40]!r} is not a whole number between {least} and {most}")
        return int(text)

    # --- answers ------------------------------------------------------------------------------------------------

    def answer_in_place(self, error: Exception) -> None:
        """Answer with an error although a method is still at work: whatever that has to say later goes nowhere."""
        self.send_error(500, exc_info=(type(error), error, None))
        self._answered_in_place = True

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> asyncio.Future[None]:
        if self._answered_in_place:
            raise Finish
        return super().finish(json_text.encode(chunk) if isinstance(chunk, dict) else chunk)

    def succeed(self, data: dict[str, Any]) -> None:
        """Answer with success."""
        self.finish({"status": "success", "data": data})

    def fail(self, status: int, message: str, **facts: Any) -> None:
        """Answer that the caller is at fault."""
        self.set_status(status, *(("Queue Empty",) if status == self.queue_empty_code else ()))
        self.finish({"status": "fail", "data": {"message": message, **facts}})

    def status_of(self, error: BaseException | None) -> int | None:
        """What a refusal is in HTTP; None for anything else."""
        return next((status for kind, status in self.status_codes if isinstance(error, kind)), None)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error's answer; Tornado calls it with the exception at hand."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        status_code = self.status_of(error) or status_code
        if not self.reads_body:  # Tornado hangs up, not to read on; a client that is told opens a new connection
            self.set_header("Connection", "close")
        if status_code == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        if status_code == 405:
            self.set_header("Allow", ", ".join(self._methods()))
        if isinstance(error, TooManyFailures):
            self.set_header("Retry-After", str(error.retry_after))
        if status_code == 503 or isinstance(error, TooManyFollowers):
            self.set_header("Retry-After", str(RETRY_AFTER))
        if status_code < 500:
            self.fail(status_code, self._message(status_code, error), **_facts(error))
        else:
            self.set_status(status_code)
            known = str(error) if isinstance(error, StoreError) else "internal error; the API's log says more"
            self.finish({"status": "error", "message": known})

    @classmethod
    @cache
    def _methods(cls) -> Sequence[str]:
        """The methods that this path has."""
        names = cls.SUPPORTED_METHODS
        return [name for name in names if getattr(cls, name.lower()) is not getattr(ApiHandler, name.lower())]

    def _message(self, status_code: int, error: BaseException | None) -> str:
        if isinstance(error, Rejected):
            return str(error)
        if isinstance(error, NotOurPage):
            return "a session changes things from the dashboard's own page only"
        return {
            401: "missing or wrong token: send it in the Authorization header",
            404: f"there is nothing at {self.request.path[:200]}",
            405: f"{self.request.method} is not possible here",
            408: f"the body came too slowly: nothing for {self.body_stall_seconds:g} seconds, or too little",
            429: "too many wrong tokens came from this address; right ones are still taken",
            413: f"the body is larger than {self.max_body_bytes} bytes",
            414: f"the path and its query are longer than {LONGEST_TARGET} characters",
        }.get(status_code, "the request could not be understood")

    def log_exception(self, *exc_info: Any) -> None:
        """A traceback only for what nobody foresaw."""
        error = exc_info[1]
        if isinstance(error, StoreError):
            logger.warning("%s %s: %s", self.request.method, self.request.path, error)
        elif not isinstance(error, Rejected | HTTPError):
            logger.error("%s %s", self.request.method, self.request.path, exc_info=exc_info)


class WorkerHandler(ApiHandler):
    """A handler of workers' calls: it also asks for the worker's id."""

    allowed: ClassVar = dict.fromkeys(("GET", "POST"), WORKERS)

    async def check_head(self) -> None:
        await super().check_head()
        given = auth.worker_id(self.request.headers)
        if not given:
            raise UnknownWorker(None)
        self.worker_id = self.checked_id(given, "worker_id")


class UnknownPathHandler(ApiHandler):
    """Answers for every path that is nobody's."""

    is_public = True

    async def check_head(self) -> None:
        raise HTTPError(404)


def refuse(where: str, message: str) -> NoReturn:
    """Raise InvalidInput for one thing that is not in the body."""
    raise InvalidInput([Fault(path=where, message=message)], what="the request")


def _courses(principals: Iterable[Principal]) -> str:
    return ", ".join(sorted(principal.course or "" for principal in principals))


def _facts(error: BaseException | None) -> dict[str, Any]:
    if isinstance(error, NotJson):
        return {"line": error.line, "column": error.column}
    if isinstance(error, InvalidInput):
        faults = [{"path": fault.path, "message": fault.message} for fault in error.faults]
        return {"errors": faults, "more_errors": error.more}
    return {}


def log_request(handler: RequestHandler) -> None:
    """One line a request: no query, no headers, so nothing secret. Polls and heartbeats only when debugging."""
    request: HTTPServerRequest = handler.request
    status = handler.get_status()
    frequent = isinstance(handler, WorkerHandler) and status < 500
    level = logging.WARNING if status >= 500 else logging.DEBUG if frequent or status == 429 else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(level, "%s %s %d %.1f ms", request.method, request.path, status, 1000 * request.request_time())
