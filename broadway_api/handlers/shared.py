"""What all handlers share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from broadway_api.errors import StoreUnavailable
from broadway_api.handlers.gate import Gate
from broadway_api.loop_monitor import LoopMonitor
from broadway_api.service import Service


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpLimits:
    """What a client may ask of a connection."""

    max_body_bytes: int = 32 * 1024 * 1024
    body_stall_seconds: float = 30
    queue_empty_code: int = 498
    auth_failures_per_minute: int = 60  # of one address
    trusted_proxies: tuple[str, ...] = ()  # addresses and networks
    open_metrics: bool = False  # /metrics asks for no token


class Answering(Protocol):
    """What answers a request."""

    def answer_in_place(self, error: Exception) -> None:
        """Answer with an error, whatever is still at work on another answer."""


class OpenRequests:
    """The requests being worked on, so that a stopping server can wait for their answers."""

    def __init__(self) -> None:
        self._open: set[Answering] = set()
        self._none = asyncio.Event()
        self._none.set()

    def opened(self, handler: Answering) -> None:
        """Count a request."""
        self._open.add(handler)
        self._none.clear()

    def ended(self, handler: Answering) -> None:
        """Count it no more; safe to repeat."""
        self._open.discard(handler)
        if not self._open:
            self._none.set()

    async def all_ended(self) -> None:
        """Wait until there are none."""
        await self._none.wait()

    def refuse_rest(self) -> None:
        """Answer those that still wait, for a store that is away most likely: repeat the request at another process."""
        stopping = StoreUnavailable("this API process is stopping")
        for handler in list(self._open):
            handler.answer_in_place(stopping)


class Connection(Protocol):
    """A worker that stays connected."""

    async def leave(self, code: int | None = None) -> None:
        """End it, with a close code of WebSocket if it is we who do."""


class OpenSockets:
    """The workers that are connected, so that a stopping server can see them out."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """One more."""
        self._open.add(connection)

    def discard(self, connection: Connection) -> None:
        """One less; safe to repeat."""
        self._open.discard(connection)

    async def leave_all(self) -> None:
        """See them all out: what they hold goes back to the queue, and costs nobody anything."""
        await asyncio.gather(*(connection.leave(1001) for connection in list(self._open)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """What `make_app` gives to each handler."""

    service: Service
    gate: Gate
    monitor: LoopMonitor
    requests: OpenRequests
    sockets: OpenSockets
    limits: HttpLimits
