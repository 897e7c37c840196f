"""A run's server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), over any interruption.

Like `exchange`, without any input or output: a client opens what `request` says and hands in what comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from broadway_client import codec
from broadway_client.errors import ClientError, NotBroadway, Unavailable, Unreachable
from broadway_client.exchange import Request, Retries, read, segment, unreachable
from broadway_client.models import RunStatus

#: The largest event that is read: a run's status has some hundred bytes.
_MAX_EVENT = 4_000_000


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """A run as it was at one moment; `id` is the Last-Event-ID from which to go on."""

    id: str
    run: RunStatus


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """The stream broke off; it is asked for again after `pause` seconds."""

    error: ClientError | None  # None: the API ended it in good order
    pause: float


#: What is told of each interruption.
OnInterruption = Callable[[Interruption], None]


class RunFeed:
    """The state of following one run. `is_over` once nothing will happen to it any more."""

    def __init__(
        self, run_id: str, retries: Retries, *, last_event_id: str | None, on_interruption: OnInterruption | None
    ) -> None:
        self._run_id = run_id
        self._retries = retries
        self._last_event_id = last_event_id
        self._on_interruption = on_interruption
        self._buffer = b""
        self._lines: list[str] = []
        self._failures = 0
        self._lost_at: float | None = None
        self.is_over = False

    def request(self) -> Request[RunStatus]:
        """What to open."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_event_id is not None:
            headers["Last-Event-ID"] = self._last_event_id
        path = f"api/v1/grading_run/{segment(self._run_id)}/events"
        return Request(method="GET", path=path, answer=RunStatus, repeatable=True, headers=headers)

    def opened(self, response: httpx.Response) -> None:
        """Look at the head of what was opened; its body has been read unless it is a stream. Raises ClientError."""
        self._buffer, self._lines = b"", []
        if response.status_code == httpx.codes.NO_CONTENT:
            self.is_over = True
        elif not is_stream(response):
            read(self.request(), response)
            raise NotBroadway(str(response.request.url), "it sends no events")

    def take(self, chunk: bytes) -> Iterator[RunEvent]:
        """The events that end within `chunk`."""
        self._failures, self._lost_at = 0, None
        self._buffer += chunk
        if len(self._buffer) > _MAX_EVENT:
            raise NotBroadway(f"grading run {self._run_id}", "an event of its stream does not end")
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").removesuffix("\r")
            if text:
                self._lines.append(text)
                continue
            event = self._event()
            if event is not None:
                self._last_event_id = event.id
                self.is_over = event.run.state.ended
                yield event

    def _event(self) -> RunEvent | None:
        names = dict(line.partition(":")[::2] for line in self._lines if not line.startswith(("data:", ":")))
        data = "\n".join(line[5:].removeprefix(" ") for line in self._lines if line.startswith("data:"))
        self._lines = []
        if not data or names.get("event", "").strip() != "run":
            return None
        try:
            return RunEvent(id=names.get("id", "").strip(), run=codec.decode(RunStatus, json.loads(data)))
        except ValueError as error:
            raise NotBroadway(f"grading run {self._run_id}", f"an event of its stream: {error}") from None

    def interrupted(self, cause: httpx.TransportError | Unavailable | None) -> float:
        """Seconds after which to open it again. Raises Unreachable, Unavailable once patience is at its end."""
        error = unreachable(cause) if isinstance(cause, httpx.TransportError) else cause
        now = self._retries.clock()
        self._lost_at = now if self._lost_at is None else self._lost_at
        self._failures += 1
        pause = self._retries.pause(self._failures, error.retry_after if isinstance(error, Unavailable) else 0.0)
        is_final = isinstance(error, Unreachable) and error.final
        if is_final or now - self._lost_at + pause > self._retries.patience:
            raise error or Unreachable(f"grading run {self._run_id}", "its stream of events keeps ending", sent=True)
        if self._on_interruption is not None:
            self._on_interruption(Interruption(error=error, pause=pause))
        return pause


def is_stream(response: httpx.Response) -> bool:
    """Whether what was opened is a stream of events."""
    kind = response.headers.get("Content-Type", "")
    return response.status_code == httpx.codes.OK and kind.startswith("text/event-stream")
