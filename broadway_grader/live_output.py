"""Sending what running jobs print to whoever follows them: best effort, on a path that no job ever waits for.

The API says which jobs are followed, in its answers to heartbeats, to what is sent, and to the questions that are asked
while a job is young: a heartbeat may be ten seconds away. Nothing is kept for this but places; what is sent is read
from what the runtimes keep for the log anyway. What cannot be sent is sent again a little later, as far as it is still
among the last bytes; and in the end the log has everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from broadway_grader.domain import Job, StageResult
from broadway_grader.errors import ApiError, Refused, UnknownWorker
from broadway_grader.live_stream import LiveStream
from broadway_grader.masking import Mask
from broadway_grader.runtimes.output import BoundedOutput

log = logging.getLogger(__name__)

#: Bytes of a stream that are sent at once, of what is there the last.
LIMIT = 65_536
#: Bytes that are sent at once of all streams together; the rest a second later.
BODY = 2 * LIMIT

#: Ages in seconds at which a job is asked about.
QUESTIONS = (1.0, 2.0, 4.0, 8.0)
#: Seconds between two posts, between two where nothing is new, and after failures in a row.
SEND_EVERY = 1.0
ASK_EVERY = 3.0
PAUSES = (2.0, 4.0, 8.0, 16.0)

STREAMS = ("stdout", "stderr")


class OutputApi(Protocol):
    """The one call that is needed of the API."""

    async def output(self, worker_id: str, job_id: str, attempt: int, body: Mapping[str, Any]) -> frozenset[str]:
        """Post some output; the names under which the job is followed. Raises ApiError."""


class _LiveStage:
    """A stage that has begun. It has no streams if its output is not kept."""

    def __init__(self) -> None:
        self.streams: Mapping[str, LiveStream] = {}
        self.result: StageResult | None = None

    def hear(self, outputs: Sequence[BoundedOutput]) -> None:
        self.streams = {name: LiveStream(output) for name, output in zip(STREAMS, outputs, strict=True)}

    def end(self, result: StageResult) -> None:
        self.result = result
        for name, stream in self.streams.items():
            stream.end(getattr(result, name))

    def news(self, index: int) -> dict[str, Any]:
        """How far it is, as far as its output was told."""
        truncated = [name for name, stream in self.streams.items() if stream.is_truncated]
        result = self.result
        if result is None or not all(stream.is_told for stream in self.streams.values()):
            return {"stage": index, "ended": False, "truncated": truncated}
        facts = {"exit_code": result.exit_code, "reason": result.reason, "truncated": truncated}
        return {"stage": index, "ended": True, **facts}


class LiveJob:
    """A running job."""

    def __init__(self, job: Job, began: float) -> None:
        self.job = job
        self.followed: frozenset[str] = frozenset()
        self.questions = [began + age for age in QUESTIONS]
        self.next_post = 0.0
        self.failures = 0
        self._stages: dict[int, _LiveStage] = {}
        self._mask: Mask | None = None
        self._known: frozenset[str] = frozenset()
        self._anew = False  # not done by whoever wishes it: `body` may be at work in its thread
        self._sent: object = None  # what there was at the last post
        self._sent_at = float("-inf")

    def begin(self, index: int) -> None:
        """A stage begins."""
        self._stages[index] = _LiveStage()

    def hear(self, index: int, outputs: Sequence[BoundedOutput]) -> None:
        """That is where its output will be kept."""
        self._stages[index].hear(outputs)

    def end(self, index: int, result: StageResult) -> None:
        """It has ended."""
        self._stages[index].end(result)

    @property
    def due(self) -> float:
        """When something is to be done next."""
        return self.next_post if self.followed else min(self.questions, default=float("inf"))

    def is_worth_a_post(self, now: float) -> bool:
        """Whether there is anything to send, or it is time to ask who still follows."""
        return self._state() != self._sent or now - self._sent_at >= ASK_EVERY

    def body(self, now: float) -> dict[str, Any]:
        """What to send: all of the stages, the end of what is new of their output. Slow; in a thread of its own."""
        self._sent, self._sent_at = self._state(), now
        if self._mask is None:
            self._mask = Mask.of(self.job)
        stages, followed = tuple(self._stages.items()), self.followed
        if self._anew or not followed <= self._known:  # by somebody who has nothing yet
            self._anew = False
            for _, stage in stages:
                for stream in stage.streams.values():
                    stream.rewind()
        self._known = followed
        pieces, left = [], BODY
        for index, stage in stages:
            for name, stream in stage.streams.items():
                if left <= 0:
                    self._sent = None  # there is more
                    break
                if piece := stream.take(self._mask, LIMIT):
                    pieces.append({"stage": index, "stream": name, "start": piece.start, "text": piece.text})
                    left -= len(piece.text.encode())
        return {"output": pieces, "stages": [stage.news(index) for index, stage in stages]}

    def begin_anew(self) -> None:
        """Send the end of everything again."""
        self._anew, self._sent = True, None

    def forget(self) -> None:
        """Nobody follows it."""
        self.followed = frozenset()
        self.begin_anew()

    def _state(self) -> object:
        return [
            (index, stage.result is None, *(stream.size for stream in stage.streams.values()))
            for index, stage in tuple(self._stages.items())
        ]


class LiveOutput:
    """The running jobs of one grader."""

    def __init__(self, *, is_on: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_on = is_on
        self._clock = clock
        self._jobs: dict[tuple[str, int], LiveJob] = {}
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def running(self, job: Job) -> Iterator[LiveJob]:
        """A job, for as long as it runs."""
        live = LiveJob(job, self._clock())
        if self._is_on:
            self._jobs[job.job_id, job.attempt] = live
            self._changed.set()
        try:
            yield live
        finally:
            self._jobs.pop((job.job_id, job.attempt), None)

    def heard(self, named: Mapping[str, int], followed: Mapping[str, frozenset[str]]) -> None:
        """What a heartbeat was told of the jobs that it named (id → attempt): who follows which of them."""
        for job_id, attempt in named.items():
            live = self._jobs.get((job_id, attempt))
            if live is not None:
                self._learn(live, followed.get(job_id, frozenset()))

    async def run(self, api: OutputApi, worker_id: Callable[[], str]) -> None:
        """Send for ever, whatever the API says, or does not."""
        while True:
            self._changed.clear()
            now = self._clock()
            due = [live for live in self._jobs.values() if live.due <= now]
            await asyncio.gather(*(self._attend_to(live, api, worker_id()) for live in due))
            if not due:
                first = min((live.due for live in self._jobs.values()), default=float("inf"))
                pause = None if first == float("inf") else max(0.0, first - now)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._changed.wait()

    async def _attend_to(self, live: LiveJob, api: OutputApi, worker_id: str) -> None:
        now = self._clock()
        live.questions = [question for question in live.questions if question > now]
        live.next_post = now + SEND_EVERY
        body: Mapping[str, Any] = {}
        if live.followed:
            if not live.is_worth_a_post(now):
                return
            body = await asyncio.to_thread(live.body, now)
        job = live.job
        try:
            names = await api.output(worker_id, job.job_id, job.attempt, body)
        except (Refused, UnknownWorker) as error:
            # It is not ours, or the API is of a release that does not take output.
            log.debug("output of job %s attempt %d was refused: %s", job.job_id, job.attempt, error)
            live.questions = []
            live.forget()
        except ApiError as error:
            log.debug("output of job %s attempt %d did not arrive: %s", job.job_id, job.attempt, error)
            live.begin_anew()
            live.next_post = now + PAUSES[min(live.failures, len(PAUSES) - 1)]
            live.failures += 1
        else:
            live.failures = 0
            self._learn(live, names)

    def _learn(self, live: LiveJob, names: Collection[str]) -> None:
        if not names:
            live.forget()
        elif names != live.followed:
            live.followed, live.next_post = frozenset(names), 0.0
            self._changed.set()
