"""Graders of the course protocol over WebSocket: jobs are pushed to them, and a lost connection is a lost worker."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from broadway_api import json_body
from broadway_api.course_protocol import jobs
from broadway_api.course_protocol.shapes import JOB_RESULT, MESSAGE, WORKER
from broadway_api.domain import Claim, Reason, Result, Worker
from broadway_api.errors import ClaimLost, JobNotFound, Rejected, StoreUnavailable, UnknownWorker, WorkerNameTaken
from broadway_api.handlers.course_protocol.base import GRADERS, NAME, Unauthorized, admitted
from broadway_api.handlers.headers import Answering
from broadway_api.handlers.shared import Shared
from broadway_api.handouts import Handout
from broadway_api.tenants import Principal
from broadway_api.validation import Validator

logger = logging.getLogger(__name__)

#: Close codes (RFC 6455, section 7.4.1) and what they stand for here.
GOING_AWAY, PROTOCOL_FAULT, WRONG_TOKEN, MALFORMED = 1001, 1002, 1008, 1011

#: Bytes of a message that these graders read.
MAX_PUSH = 10_000_000

#: Seconds that a name which is being given back is waited for.
NAME_PATIENCE = 1.0

#: Seconds that one look into the queue waits for a job; the next one follows.
CLAIM_WAIT = 60.0

#: Seconds to wait after the store failed.
STORE_PAUSE = 1.0

_message = Validator(MESSAGE)
_register = Validator(WORKER)
_result = Validator(JOB_RESULT)


class WorkerSocket(Answering, WebSocketHandler):
    """One worker, for as long as its connection lasts."""

    _admitted: Principal | None = None
    _worker: Worker | None = None
    _holds: str | None = None  # the job that was pushed last, until its result has come
    _pusher: asyncio.Task[None] | None = None
    _leaving: asyncio.Task[None] | None = None

    def initialize(self, shared: Shared) -> None:
        """Take what `make_app` gives to all handlers."""
        self._shared = shared
        self._service = shared.service
        self._idle = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reports: set[asyncio.Task[None]] = set()

    @property
    def _principal(self) -> Principal:
        """Who is connected. Not to be asked before the token was looked at."""
        if self._admitted is None:
            raise RuntimeError(f"{self.request.path} was not admitted")
        return self._admitted

    # --- before the connection ----------------------------------------------------------------------------------

    async def get(self, *args: str, **kwargs: str) -> None:
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            await super().get(*args, **kwargs)
        else:
            self.set_header("Upgrade", "websocket")
            self._refuse(426, "this is for WebSockets alone")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        if status_code == 405:
            self.set_header("Allow", "GET")
        self._refuse(status_code, "this is for WebSockets alone")

    def _refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.finish({"status": "fail", "data": {"message": message}})

    # --- what Tornado asks --------------------------------------------------------------------------------------

    @property
    def ping_interval(self) -> float:
        """Seconds between our pings, whose answers are heartbeats; the worker's own pings may come too seldom."""
        return self._service.policy.heartbeat_interval

    @property
    def max_message_size(self) -> int:
        return self._shared.limits.max_body_bytes

    def check_origin(self, origin: str) -> bool:
        """Whoever has the token may come from anywhere; a browser cannot send one here."""
        return True

    # --- the connection -----------------------------------------------------------------------------------------

    async def open(self, name: str) -> None:
        """Look at the token; the worker says the rest."""
        self._name = name
        try:
            self._admitted = await admitted(self._shared.gate, self.request, GRADERS)
        except HTTPError as error:
            self.close(WRONG_TOKEN, error.message if isinstance(error, Unauthorized) else "invalid token")

    def on_ping(self, data: bytes) -> None:
        self._in_background(self._heartbeat)

    def on_pong(self, data: bytes) -> None:
        self._in_background(self._heartbeat)

    async def on_message(self, message: str | bytes) -> None:
        """One message at a time: Tornado reads the next one when this is done."""
        if self._admitted is None:
            return  # it is being closed
        try:
            body = message.encode(errors="surrogatepass") if isinstance(message, str) else message
            value = json_body.parse(body, mend_text=True)
            _message.check(value)
            args = value["args"]
            (_register if value["type"] == "register" else _result).check(args)
        except Rejected as error:
            logger.info("worker %s sent what cannot be read: %s", self._name, error)
            self.close(MALFORMED, "malformed message")
            return
        if value["type"] == "job_result":
            self._take(args)
            return
        try:
            await self._enter(args["hostname"])
        except StoreUnavailable as error:
            logger.warning("worker %s: %s", self._name, error)
            self.close(MALFORMED, "the store is unavailable")

    def on_close(self) -> None:
        self._in_background(self.leave)

    async def leave(self, code: int | None = None) -> None:
        """End the registration; safe to repeat, and over for everybody who asked when it is over.

        Without a close code of ours the connection was lost, and what the worker held died with it.
        """
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(code))
        await asyncio.shield(self._leaving)

    async def _leave(self, code: int | None) -> None:
        if self._pusher is not None:
            self._pusher.cancel()
        if code is not None:
            self.close(code, "this API process is stopping")
        if self._reports:  # a worker that says its last word and goes has said it
            await asyncio.wait(self._reports)
        if self._worker is not None:
            logger.info("worker %s (%s) has gone: %s", self._worker.id, self._name, self.close_reason or "no reason")
            with suppress(UnknownWorker, StoreUnavailable):  # its leases end by themselves
                await self._service.fleet.deregister(self._worker.id, crashed=code is None, by=self._principal)
        self._shared.sockets.discard(self)

    # --- the conversation ---------------------------------------------------------------------------------------

    async def _enter(self, hostname: str) -> None:
        if self._worker is not None:
            self.close(PROTOCOL_FAULT, "registered before")
            return
        try:
            worker = await self._service.named_workers.register(
                self._name, hostname, patience=NAME_PATIENCE, by=self._principal
            )
        except WorkerNameTaken as error:
            await self._say({"success": False})
            self.close(PROTOCOL_FAULT, str(error)[:100])
            return
        self._worker = worker
        self._shared.sockets.add(self)
        if self.ws_connection is None:  # it went while it was being registered
            await self.leave()
            return
        await self._say({"success": True})
        self._idle.set()
        self._pusher = asyncio.create_task(self._push_jobs(worker))

    def _take(self, report: Mapping[str, Any]) -> None:
        """See to a result in the background: its worker cannot send it again, and its pings want to be answered."""
        if self._worker is None:
            self.close(PROTOCOL_FAULT, "submitting before registering")
            return
        task = asyncio.create_task(self._finish(self._worker, report))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _finish(self, worker: Worker, report: Mapping[str, Any]) -> None:
        job_id = report["grading_job_id"]
        try:
            await self._insist(Claim(job_id=job_id, worker_id=worker.id, attempt=None), jobs.result(report))
        except ClaimLost:
            logger.info("worker %s reports job %s, which it has lost", worker.id, job_id)
        except (JobNotFound, UnknownWorker) as error:
            self.close(PROTOCOL_FAULT, str(error)[:100])
            return
        if job_id == self._holds:
            self._holds = None
            self._idle.set()

    async def _insist(self, claim: Claim, result: Result) -> None:
        """Hand a result in, however long the store is away; only the end of this process ends that."""
        while True:
            try:
                await self._service.fleet.finish(claim, result, by=self._principal)
            except StoreUnavailable as error:
                if self._service.wake_ups.closed:
                    raise
                logger.warning("the result of job %s waits: %s", claim.job_id, error)
                await asyncio.sleep(STORE_PAUSE)
            else:
                return

    async def _push_jobs(self, worker: Worker) -> None:
        """Give the worker a job whenever it has none."""
        while not self._service.wake_ups.closed:
            await self._idle.wait()
            try:
                # It holds nothing: what it was given before it has reported, or lost.
                claimed = await self._service.fleet.claim(worker.id, 1, [], CLAIM_WAIT, by=self._principal)
                if claimed:
                    self._idle.clear()
                    await self._push(claimed[0], worker)
            except StoreUnavailable as error:
                logger.warning("worker %s: %s", worker.id, error)
                await asyncio.sleep(STORE_PAUSE)
            except UnknownWorker:
                self.close(PROTOCOL_FAULT, "the registration has ended")
                return

    async def _push(self, handout: Handout, worker: Worker) -> None:
        text = json.dumps(jobs.handout(handout.job, handout.plan.config, handout.envs, over_websocket=True))
        if len(text) <= MAX_PUSH:
            self._holds = handout.job.id
            await self._say(text)
            return
        message = f"more than the {MAX_PUSH} bytes that a grader of this protocol reads"
        info = {"reason": Reason.RUNTIME_ERROR.value, "message": message}
        claim = Claim(job_id=handout.job.id, worker_id=worker.id, attempt=handout.job.attempt)
        with suppress(ClaimLost):
            await self._insist(claim, Result(success=False, reason=Reason.RUNTIME_ERROR, info=(info,)))
        self._idle.set()

    async def _say(self, message: str | dict[str, Any]) -> None:
        with suppress(WebSocketClosedError):  # `on_close` sees to what that means
            await self.write_message(message if isinstance(message, str) else json.dumps(message))

    async def _heartbeat(self) -> None:
        if self._worker is not None:
            with suppress(UnknownWorker, StoreUnavailable):
                await self._service.fleet.heartbeat(self._worker.id, None, by=self._principal)

    def _in_background(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


routes = [(rf"/api/v1/worker_ws/({NAME})", WorkerSocket)]
