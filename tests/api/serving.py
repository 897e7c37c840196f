"""An API on a real port, in this process, and a client that speaks to it as `docs/protocol.md` says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from broadway_api.cluster_tokens import ClusterTokens
from broadway_api.handlers.shared import HttpLimits
from broadway_api.policy import Policy
from broadway_api.secret_box import SecretBox
from broadway_api.server import WebhookSettings, serve
from broadway_api.store import open_store
from broadway_api.store.port import Store
from tests.api.described import check_answer, description

TOKEN = "test-cluster-token"
SAMPLES = Path(__file__).parents[1] / "samples"
DEADLINE = 20.0  # seconds that anything may take before a test fails

Json = dict[str, Any]


def sample(name: str) -> Any:
    """One of the bodies that all sides' tests share."""
    return json.loads((SAMPLES / f"{name}.json").read_text())


class WatchedStore:
    """The real store, and who calls what of it. Calls can be held up, to make things happen in a known order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[str] = []
        self._called = asyncio.Condition()
        self.gates: dict[str, asyncio.Event] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            async with self._called:
                self.calls.append(name)
                self._called.notify_all()
            if name in self.gates:
                await self.gates[name].wait()
            return await method(*arguments, **named)

        return call

    async def until_called(self, name: str, times: int = 1) -> None:
        """Wait until a method was called that often since the store was opened."""
        async with asyncio.timeout(DEADLINE), self._called:
            await self._called.wait_for(lambda: self.calls.count(name) >= times)


@dataclass(kw_only=True)
class Api:
    """A running API, as its users see it."""

    port: int
    store: WatchedStore
    http: httpx.AsyncClient
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        worker: str | None = None,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        params: dict[str, Any] | None = None,
    ) -> httpx.Response:
        """One request under `/api/v1`; a `body` of bytes goes as it is, anything else as JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = token
        if worker is not None:
            sent["worker_id"] = worker
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        return await self.http.request(method, f"/api/v1/{path}", content=content, headers=sent, params=params)

    async def data(self, method: str, path: str, body: Any = None, **named: Any) -> Any:
        """The data of a request that must succeed."""
        answer = await self.call(method, path, body, **named)
        assert answer.is_success, answer.text
        assert answer.json()["status"] == "success"
        return answer.json()["data"]

    async def register(self, **fields: Any) -> str:
        """A new worker's id."""
        return str((await self.data("POST", "worker_register", fields))["worker_id"])

    async def create(self, config: Json | None = None, **named: Any) -> str:
        """A new run's id."""
        return str((await self.data("POST", "grading_run", config or run_config(), **named))["grading_run_id"])

    async def start(self, config: Json | None = None) -> str:
        """The id of a new run that was started."""
        run_id = await self.create(config)
        await self.data("POST", f"grading_run/{run_id}")
        return run_id

    async def claim(self, worker: str, **named: Any) -> Json:
        """A job that must be there."""
        return dict(await self.data("GET", "grading_job", worker=worker, **named))

    async def report(self, worker: str, job: Json, *, success: bool = True, **fields: Any) -> httpx.Response:
        """Report a claimed job at its attempt."""
        body = {"success": success, "info": [], "attempt": job["attempt"]} | fields
        return await self.call("POST", f"grading_job/{job['job_id']}", body, worker=worker)

    async def run(self, run_id: str, **params: Any) -> Json:
        """A run's status."""
        return dict(await self.data("GET", f"grading_run/{run_id}", params=params or None))

    async def poll(self, worker: str, *, wait: int = 60, **named: Any) -> asyncio.Task[httpx.Response]:
        """A long poll that has looked into the store, found nothing, and waits."""
        looks = self.store.calls.count("claim_jobs")
        task = asyncio.create_task(
            self.call("GET", "grading_job", worker=worker, headers={"Prefer": f"wait={wait}"}, **named)
        )
        await self.store.until_called("claim_jobs", looks + 1)
        await self.ping()  # and by now that look has come back
        assert not task.done()
        return task

    async def ping(self) -> Json:
        """The answer of healthz."""
        answer = await self.http.get("/healthz")
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])


def run_config(students: int = 1, *, pre: bool = False, post: bool = False, **changes: Any) -> Json:
    """A run of students s0, s1, …; with one stage a pipeline."""
    config: Json = {
        "students": [{"NET_ID": f"s{number}"} for number in range(students)],
        "student_pipeline": [{"image": "student"}],
    }
    if pre:
        config["pre_processing_pipeline"] = [{"image": "pre"}]
    if post:
        config["post_processing_pipeline"] = [{"image": "post"}]
    return config | changes


@asynccontextmanager
async def serving(
    store_url: str,
    *,
    policy: Policy | None = None,
    secret_box: SecretBox | None = None,
    limits: HttpLimits | None = None,
    webhook: WebhookSettings | None = None,
) -> AsyncIterator[Api]:
    """An API over a store of its own; setting `stop` stops it before the block ends.

    Each answer that its client gets is held against the API's own description.
    """
    policy, limits = policy or Policy(), limits or HttpLimits(auth_failures_per_minute=1_000_000)
    described = description(policy, limits.queue_empty_code)
    async with open_store(store_url) as opened:
        store = WatchedStore(opened)
        stop = asyncio.Event()
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            async with serve(
                store,
                policy,
                secret_box or SecretBox.with_new_key(),
                tokens=ClusterTokens.given(TOKEN),
                bind="127.0.0.1",
                port=0,
                limits=limits,
                webhook=webhook,
            ) as running:
                listening.set_result(running.port)
                await stop.wait()
                assert not running.failure.done(), "a background task died"

        server = asyncio.create_task(run())
        either: set[asyncio.Future[Any]] = {server, listening}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            server.result()  # why it could not be started
        port = await listening
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            timeout=DEADLINE,
            event_hooks={"response": [partial(check_answer, described)]},
        ) as http:
            try:
                yield Api(port=port, store=store, http=http, stop=stop)
            finally:
                stop.set()
                await server


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so; fail after DEADLINE seconds."""
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110  # what is asked is on the other side of a connection
            await asyncio.sleep(0.02)


SHORT_LEASE = Policy(heartbeat_interval=1, lease=timedelta(milliseconds=300))
