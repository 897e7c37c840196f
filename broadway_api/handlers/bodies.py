"""Bodies, taken as they come and within bounds, so that nothing is read of one that is refused."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeVar, cast

from tornado.web import HTTPError

from broadway_api import json_body
from broadway_api.handlers.headers import Answering
from broadway_api.handlers.shared import HttpLimits
from broadway_api.http1.exchange import Exchange
from broadway_api.validation import Validator

T = TypeVar("T")

#: Bytes of a body that can be looked at on the event loop without anybody noticing.
LARGE_BODY = 65_536

#: Bytes a second that a body must bring on average, once ten times the patience for a stall is over: who sends a byte
#: now and then, for ever, never stalls.
LEAST_RATE = 1_000


class BodyTaking(Answering):
    """A handler that keeps the body of its request until its method asks for it."""

    #: Bytes of a body that is never larger, whatever the operator allows; None: as large as that.
    largest_body: ClassVar[int | None] = None

    #: Whether the rest of the body is read if the request is refused now.
    reads_body = False

    _stall: asyncio.TimerHandle | None = None

    def take_limits(self, limits: HttpLimits) -> None:
        """Take what a body may be."""
        self.max_body_bytes = min(limits.max_body_bytes, self.largest_body or sys.maxsize)
        self.body_stall_seconds = limits.body_stall_seconds
        self._body = bytearray()

    def check_announced_length(self) -> None:
        """Refuse on the headers alone what is too large."""
        length = self.request.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length[:20]) > self.max_body_bytes:  # so many digits are enough to refuse it
            raise HTTPError(413)

    def begin_body(self) -> None:
        """Wait for the body from now on."""
        self.reads_body = True
        self._watch_body()

    def data_received(self, chunk: bytes) -> None:
        """Keep a piece of the body, unless it makes the body too large."""
        if self._finished:
            return
        self._body += chunk
        if len(self._body) > self.max_body_bytes:
            self.reads_body = False
            self.send_error(413)
        elif self._comes_too_slowly():
            self._body_stalled()
        else:
            self._watch_body()

    def _comes_too_slowly(self) -> bool:
        late = self.request.request_time() - 10 * self.body_stall_seconds
        return late > 0 and len(self._body) < late * LEAST_RATE

    def _watch_body(self) -> None:
        """Cut the request off if nothing more comes of its body for too long."""
        self.stop_watching()
        if not self._is_there:
            loop = asyncio.get_running_loop()
            self._stall = loop.call_later(self.body_stall_seconds, self._body_stalled)

    def stop_watching(self) -> None:
        """Wait for nothing more."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    @property
    def _is_there(self) -> bool:
        return cast(Exchange, self.request.connection).has_whole_request

    def _body_stalled(self) -> None:
        if not (self._finished or self._is_there):
            self.reads_body = False
            self.send_error(408)

    def body(self) -> bytes:
        """The whole body."""
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
