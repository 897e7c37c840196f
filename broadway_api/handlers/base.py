"""What all handlers share: the envelope, authorization, bodies read within bounds, errors as answers.

A handler authorises (`prepare` does it), parses, calls one use case, and writes.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, ClassVar, NoReturn, TypeVar

from tornado.httputil import HTTPServerRequest
from tornado.web import Finish, HTTPError, RequestHandler, stream_request_body

from broadway_api import auth, ids, json_body, json_text
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
from broadway_api.handlers.gate import COOKIE, NotOurPage, TooManyFailures
from broadway_api.handlers.headers import Answering
from broadway_api.handlers.shared import Shared
from broadway_api.tenants import Principal, Role
from broadway_api.validation import Validator

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Bytes of a body that can be looked at on the event loop without anybody noticing.
LARGE_BODY = 65_536

#: Characters of a path with its query: those of a poll that names 1,024 jobs.
LONGEST_TARGET = 30_000

#: Header lines; browsers send twenty.
MOST_HEADERS = 100

#: Bytes a second that a body must bring on average, once ten times the patience for a stall is over: who sends a byte
#: now and then, for ever, never stalls.
LEAST_RATE = 1_000

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
class ApiHandler(Answering):
    """A handler of one path. Bodies are taken as they come, so that nothing is read of one that is refused."""

    #: Whether no token is asked for.
    is_public: ClassVar[bool] = False

    #: Method → the roles whose tokens may use it, beside the operator's, which may do everything.
    allowed: ClassVar[Mapping[str, frozenset[Role]]] = {}

    #: Methods that a browser with a session may use, in place of a token. None that is a grader's: some of those
    #: change something though they are a GET.
    by_session: ClassVar[tuple[str, ...]] = ()

    #: Bytes of a body that is never larger, whatever the operator allows; None: as large as that.
    largest_body: ClassVar[int | None] = None

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
        self._max_body_bytes = min(shared.limits.max_body_bytes, self.largest_body or sys.maxsize)
        self._body_stall_seconds = shared.limits.body_stall_seconds
        self._body = bytearray()
        self._expected_bytes = 0
        self._stall: asyncio.TimerHandle | None = None
        self._reads_body = False

    # --- before the body ----------------------------------------------------------------------------------------

    def compute_etag(self) -> None:
        """None: answers are small, often change, and hashing them costs more than sending them."""

    async def prepare(self) -> None:
        self._requests.opened(self)
        self._refuse_long_heads()
        self._expected_bytes = self._content_length()
        await self.check_head()
        self._reads_body = True
        self._watch_body()

    def _refuse_long_heads(self) -> None:
        if len(self.request.uri or "") > LONGEST_TARGET:
            raise HTTPError(414)
        if sum(1 for _ in self.request.headers.get_all()) > MOST_HEADERS:
            raise HTTPError(431)

    async def check_head(self) -> None:
        """Refuse on the headers alone what can be refused on them."""
        if not self.is_public:
            self._principal = self._one_of(await self._enter())
        if self._expected_bytes > self._max_body_bytes:
            raise HTTPError(413)

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

    def _content_length(self) -> int:
        length = self.request.headers.get("Content-Length", "0")
        return int(length[:20]) if length.isdecimal() else 0  # more digits than any limit are enough to refuse it

    # --- the body -----------------------------------------------------------------------------------------------

    def data_received(self, chunk: bytes) -> None:
        """Keep a piece of the body, unless it makes the body too large."""
        if self._finished:
            return
        self._body += chunk
        if len(self._body) > self._max_body_bytes:
            self._reads_body = False
            self.send_error(413)
        elif self._comes_too_slowly():
            self._body_stalled()
        else:
            self._watch_body()

    def _comes_too_slowly(self) -> bool:
        late = self.request.request_time() - 10 * self._body_stall_seconds
        return late > 0 and len(self._body) < late * LEAST_RATE

    def _watch_body(self) -> None:
        """Cut the request off if nothing more comes of its body for too long."""
        self._stop_watching_body()
        chunked = "Transfer-Encoding" in self.request.headers
        if chunked or len(self._body) < self._expected_bytes:
            loop = asyncio.get_running_loop()
            self._stall = loop.call_later(self._body_stall_seconds, self._body_stalled)

    def _stop_watching_body(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _body_stalled(self) -> None:
        if not self._finished:
            self._reads_body = False
            self.send_error(408)

    def on_finish(self) -> None:
        self._stop_watching_body()
        self._requests.ended(self)

    def on_connection_close(self) -> None:
        super().on_connection_close()  # it ends the wait for the rest of the body
        self.client_has_gone = True
        self._stop_watching_body()
        self._requests.ended(self)
        if self._work is not None:
            self._work.cancel()

    async def while_connected(self, work: Awaitable[Any]) -> Any:
        """Wait for `work`, but not longer than the client does: what nobody waits for must not take a job."""
        self._stop_watching_body()  # a body is over when its method is called, also a chunked one that nobody reads
        self._work = asyncio.ensure_future(work)
        if self.client_has_gone:
            self._work.cancel()
        try:
            return await self._work
        except asyncio.CancelledError:
            raise Finish from None

    def body(self) -> bytes:
        """The whole body."""
        self._stop_watching_body()
        return bytes(self._body)

    async def json_body(self, validator: Validator, *, mend_text: bool = False) -> Any:
        """The body's value, of the right shape; None for an empty body. Raises NotJson, InvalidInput."""
        body = self.body()
        if not body.strip():
            return None
        value = await self.aside(partial(json_body.parse, body, mend_text=mend_text))
        await self.aside(validator.check, value)
        return value

    async def aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do what takes as long as the body is large: beside the event loop, if it is."""
        if len(self._body) <= LARGE_BODY:
            return work(*arguments)
        return await asyncio.to_thread(work, *arguments)

    # --- arguments ----------------------------------------------------------------------------------------------

    def checked_id(self, text: str, what: str) -> str:
        """An id out of a path, header or query. Raises InvalidInput if it has not the form of one."""
        if not ids.is_id(text):
            refuse(what, f"{text[:80]!r} is no id: 24 hexadecimal digits in lower case")
        return text

    def course_argument(self) -> str | None:
        """The course that the query names, if it does. Raises InvalidInput for one that nobody can have."""
        course = self.get_query_argument("course", None)
        if course == "":
            refuse("course", "it is empty; name a course, or leave it out")
        return course

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
        if not self._reads_body:  # Tornado hangs up, not to read on; a client that is told opens a new connection
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
            408: f"the body came too slowly: nothing for {self._body_stall_seconds:g} seconds, or too little",
            429: "too many wrong tokens came from this address; right ones are still taken",
            413: f"the body is larger than {self._max_body_bytes} bytes",
            414: f"the path and its query are longer than {LONGEST_TARGET} characters",
            431: f"more than {MOST_HEADERS} header lines",
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
    logger.log(level, "%s %s %d %.1f ms", request.method, request.path, status, 1000 * request.request_time())
