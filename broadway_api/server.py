"""The API as a running server: listens, keeps its background tasks alive, stops without dropping an answer."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tornado.netutil import bind_sockets

from broadway_api.app import make_app
from broadway_api.clock import StoreClock
from broadway_api.cluster_tokens import ClusterTokens
from broadway_api.events import listen_for_jobs, watch_queue
from broadway_api.handlers.headers import EVERYWHERE
from broadway_api.handlers.shared import HttpLimits, OpenRequests, OpenSockets
from broadway_api.http1.server import Server
from broadway_api.loop_monitor import LoopMonitor
from broadway_api.measured_store import measured
from broadway_api.metrics import Metrics
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
    server = Server(app, idle_seconds=IDLE_SECONDS, headers=EVERYWHERE)
    sockets = bind_sockets(port, bind)
    await server.listen(sockets, tls)
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
            await asyncio.wait_for(server.close_all(), CLOSE_SECONDS)
        server.abort_all()
        await end_all(tasks)
        if way is not None:
            way.close()


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
