"""The API as a running server: listens, keeps its background tasks alive, stops without dropping an answer."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from broadway_api.app import make_app
from broadway_api.clock import StoreClock
from broadway_api.cluster_tokens import ClusterTokens
from broadway_api.events import listen_for_jobs, watch_queue
from broadway_api.handlers.shared import HttpLimits, OpenRequests, OpenSockets
from broadway_api.loop_monitor import LoopMonitor
from broadway_api.measured_store import measured
from broadway_api.metrics import Metrics
from broadway_api.open_files import OpenFiles
from broadway_api.outbox import Outbox
from broadway_api.policy import Policy
from broadway_api.secret_box import SecretBox
from broadway_api.service import Service
from broadway_api.store.port import Store
from broadway_api.supervision import end_all, supervise
from broadway_api.sweeper import Sweeper
from broadway_api.tenants import Course
from broadway_api.webhook import Webhook

logger = logging.getLogger(__name__)

#: Seconds that requests have to get their answers once the server is stopping. With closing the store, 5 s in all.
DRAIN_SECONDS = 3.0

#: Seconds that the connections may then take to close.
CLOSE_SECONDS = 0.5

#: Bytes of a request's head. Tornado takes 64 KiB, of which small headers hold the event loop for 50 ms and more; who
#: sends more than this is hung up on, who sends nearly as much is told what is too long (`handlers/base.py`).
LARGEST_HEAD = 32_768

#: Connections that the kernel keeps until the loop takes them, as many as it allows by default. Tornado asks for 128:
#: the rest of a fleet that comes back at once, as after a restart, would be reset.
BACKLOG = 4_096

#: Connections without a request that are closed at once when there is no room for another.
CLOSED_AT_ONCE = 32

#: Seconds after which a connection is closed that brings no request, or not the whole head of one.
IDLE_SECONDS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookSettings:
    """Who is told how runs end."""

    url: str
    key: bytes = field(repr=False)  # signs what is told


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A server that listens."""

    port: int
    service: Service
    failure: asyncio.Future[None]  # never done, unless a background task died of a fault that nobody foresaw


@asynccontextmanager
async def serve(
    store: Store,
    policy: Policy,
    secret_box: SecretBox,
    *,
    tokens: ClusterTokens,
    courses: Sequence[Course] | None = None,
    bind: str,
    port: int,
    limits: HttpLimits,
    tls: ssl.SSLContext | None = None,
    webhook: WebhookSettings | None = None,
) -> AsyncIterator[Running]:
    """Serve an open store until the block is left; then answer what is in flight.

    `courses` are those of the operator's course config, if there is one. Raises OSError if it cannot bind,
    SecretKeyMismatch if `secret_box` does not open the store's secrets, and what `Tenancy.load_courses` does.
    """
    monitor, requests = LoopMonitor(), OpenRequests()
    metrics = Metrics(lambda: monitor.lag)
    store = measured(store, metrics)
    clock = StoreClock(store.time)
    await clock.synchronize()
    way = Webhook(webhook.url) if webhook else None
    outbox = Outbox(store, way, webhook.key, clock.now) if webhook and way else None
    service = Service(store, policy, secret_box, tokens, clock=clock.now, metrics=metrics, outbox=outbox)
    await service.vault.check_key()
    await service.access.refresh()
    if courses is not None:
        await service.tenancy.load_courses(courses)
    sweeper = Sweeper(store, service.settler, service.wake_ups, policy, clock)
    connected = OpenSockets()
    app = make_app(service, monitor=monitor, requests=requests, sockets=connected, limits=limits)
    server = _Server(
        app,
        ssl_options=tls,
        idle_connection_timeout=IDLE_SECONDS,
        max_header_size=LARGEST_HEAD,
        max_body_size=sys.maxsize,  # handlers hold bodies to their limit, and say so in the envelope
    )
    server.requests = requests
    sockets = bind_sockets(port, bind, backlog=BACKLOG)
    server.add_sockets(sockets)
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    tasks = [
        _background("sweeper", sweeper.run, failure),
        _background("queue watcher", lambda: watch_queue(store, service.wake_ups), failure),
        _background("queue listener", lambda: listen_for_jobs(store, service.wake_ups), failure),
        _background("access", service.access.run, failure),
        _background("live output announcer", service.live_output.announce, failure),
        _background("live output listener", service.live_output.listen, failure),
        _background("loop monitor", monitor.run, failure),
    ]
    if outbox is not None:
        tasks.append(_background("outbox", outbox.run, failure))
    try:
        yield Running(port=sockets[0].getsockname()[1], service=service, failure=failure)
    finally:
        server.stop()
        service.wake_ups.close()  # polls that wait are answered: there is no work
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(requests.all_ended(), connected.leave_all()), DRAIN_SECONDS)
        requests.refuse_rest()
        with suppress(TimeoutError):  # it waits for handlers, and one may hang on a store that is away
            await asyncio.wait_for(server.close_all_connections(), CLOSE_SECONDS)
        await end_all(tasks)
        if way is not None:
            way.close()


class _Server(HTTPServer):
    """Closes connections for which there is no room. Left in the kernel's queue they would keep the loop busy.

    Those that have waited longest for a request go with it, so that nobody can keep others out by doing nothing.
    """

    def initialize(self, *arguments: Any, **named: Any) -> None:
        super().initialize(*arguments, **named)
        self.requests = OpenRequests()  # those that its application works on
        self._open_files = OpenFiles()
        self._waiting: dict[IOStream, None] = {}  # connections, in the order in which they began to wait for a request

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if self._open_files.has_room(stream.socket.fileno()):
            super().handle_stream(stream, address)
        else:
            stream.close()
            self._make_room()

    def start_request(self, server_conn: Any, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        self._waiting.pop(server_conn.stream, None)
        self._waiting[server_conn.stream] = None
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: Any) -> None:
        self._waiting.pop(server_conn.stream, None)
        super().on_close(server_conn)

    def _make_room(self) -> None:
        busy = self.requests.streams()
        for stream in list(islice((stream for stream in self._waiting if stream not in busy), CLOSED_AT_ONCE)):
            stream.close()


def _background(name: str, run: Callable[[], Awaitable[None]], failure: asyncio.Future[None]) -> asyncio.Task[None]:
    task = asyncio.create_task(supervise(name, run), name=name)

    def report(ended: asyncio.Task[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        if error is not None:
            logger.critical("the %s died", name, exc_info=error)
            if not failure.done():
                failure.set_exception(error)

    task.add_done_callback(report)
    return task
