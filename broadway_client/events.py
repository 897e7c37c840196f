"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), over any interruption.

Like `exchange`, without any input or output: a client opens what `request` says and hands in what comes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx

from broadway_client import codec
from broadway_client.codec import Answer
from broadway_client.errors import ClientError, NotBroadway, Unavailable, Unreachable
from broadway_client.exchange import Request, Retries, read, segment, unreachable
from broadway_client.models import JobChange, LogEnd, Printed, RunStatus, StageChange

#: The largest event that is read: a run's status has some hundred bytes, a piece of a log 64 KiB in JSON, each of
#: several thousand workers half a kilobyte.
_MAX_EVENT = 4_000_000


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """A run as it was at one moment; `id` is the Last-Event-ID from which to go on."""

    id: str
    run: RunStatus


@dataclass(frozen=True, kw_only=True)
class LogEvent:
    """What happened to a job whose log is followed; `id` is the Last-Event-ID from which to go on."""

    id: str
    name: str
    what: JobChange | StageChange | Printed | LogEnd


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """The stream broke off; it is asked for again after `pause` seconds."""

    error: ClientError | None  # None: the API ended it in good order
    pause: float


#: What is told of each interruption.
OnInterruption = Callable[[Interruption], None]


Event = TypeVar("Event")
Seen = TypeVar("Seen", bound=Answer)


class Feed(ABC, Generic[Event]):
    """The state of following something. `is_over` once nothing will happen to it any more."""

    def __init__(
        self,
        followed: str,
        path: str,
        retries: Retries,
        *,
        params: Mapping[str, object | None] | None = None,
        last_event_id: str | None,
        on_interruption: OnInterruption | None,
    ) -> None:
        """`followed` names it to people."""
        self._followed = followed
        self._path = path
        self._params = {name: str(value) for name, value in (params or {}).items() if value is not None}
        self._retries = retries
        self._last_event_id = last_event_id
        self._on_interruption = on_interruption
        self._buffer = b""
        self._lines: list[str] = []
        self._failures = 0
        self._lost_at: float | None = None
        self.is_over = False

    @abstractmethod
    def _read(self, name: str, id_: str, data: str) -> Event | None:
        """The event of a name; None if it is none that is known."""

    @abstractmethod
    def _is_last(self, event: Event) -> bool:
        """Whether it is the last."""

    def request(self) -> Request[Answer]:
        """What to open."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_event_id is not None:
            headers["Last-Event-ID"] = self._last_event_id
        return Request(
            method="GET",
            path=f"api/v1/{self._path}",
            answer=Answer,
            repeatable=True,
            params=self._params,
            headers=headers,
        )

    def opened(self, response: httpx.Response) -> None:
        """Look at the head of what was opened; its body has been read unless it is a stream. Raises ClientError."""
        self._buffer, self._lines = b"", []
        if response.status_code == httpx.codes.NO_CONTENT:
            self.is_over = True
        elif not is_stream(response):
            read(self.request(), response)
            raise NotBroadway(str(response.request.url), "it sends no events")

    def take(self, chunk: bytes) -> Iterator[Event]:
        """The events that end within `chunk`."""
        self._failures, self._lost_at = 0, None
        self._buffer += chunk
        if len(self._buffer) > _MAX_EVENT:
            raise NotBroadway(self._followed, "an event of its stream does not end")
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").removesuffix("\r")
            if text:
                self._lines.append(text)
                continue
            event = self._event()
            if event is not None:
                self.is_over = self._is_last(event)
                yield event

    def _event(self) -> Event | None:
        names = dict(line.partition(":")[::2] for line in self._lines if not line.startswith(("data:", ":")))
        data = "\n".join(line[5:].removeprefix(" ") for line in self._lines if line.startswith("data:"))
        self._lines = []
        if not data:
            return None
        id_ = names.get("id", "").strip()
        try:
            event = self._read(names.get("event", "").strip(), id_, data)
        except ValueError as error:
            raise NotBroadway(self._followed, f"an event of its stream: {error}") from None
        if event is not None and id_:
            self._last_event_id = id_
        return event

    def interrupted(self, cause: httpx.TransportError | Unavailable | None) -> float:
        """Seconds after which to open it again. Raises Unreachable, Unavailable once patience is at its end."""
        error = unreachable(cause) if isinstance(cause, httpx.TransportError) else cause
        now = self._retries.clock()
        self._lost_at = now if self._lost_at is None else self._lost_at
        self._failures += 1
        pause = self._retries.pause(self._failures, error.retry_after if isinstance(error, Unavailable) else 0.0)
        is_final = isinstance(error, Unreachable) and error.final
        if is_final or now - self._lost_at + pause > self._retries.patience:
            raise error or Unreachable(self._followed, "its stream of events keeps ending", sent=True)
        if self._on_interruption is not None:
            self._on_interruption(Interruption(error=error, pause=pause))
        return pause


class RunFeed(Feed[RunEvent]):
    """A run that is followed."""

    def __init__(
        self, run_id: str, retries: Retries, *, last_event_id: str | None, on_interruption: OnInterruption | None
    ) -> None:
        super().__init__(
            f"grading run {run_id}",
            f"grading_run/{segment(run_id)}/events",
            retries,
            last_event_id=last_event_id,
            on_interruption=on_interruption,
        )

    def _read(self, name: str, id_: str, data: str) -> RunEvent | None:
        return RunEvent(id=id_, run=codec.decode(RunStatus, json.loads(data))) if name == "run" else None

    def _is_last(self, event: RunEvent) -> bool:
        return event.run.state.ended


_LOG_EVENTS: Mapping[str, type[JobChange | StageChange | Printed | LogEnd]] = {
    "job": JobChange,
    "stage": StageChange,
    "output": Printed,
    "end": LogEnd,
}


class LogFeed(Feed[LogEvent]):
    """A job whose log is followed."""

    def __init__(
        self,
        job_id: str,
        stage: int | None,
        retries: Retries,
        *,
        last_event_id: str | None,
        on_interruption: OnInterruption | None,
    ) -> None:
        super().__init__(
            f"grading job {job_id}",
            f"grading_job/{segment(job_id)}/log",
            retries,
            params={"follow": "true", "stage": stage},
            last_event_id=last_event_id,
            on_interruption=on_interruption,
        )

    def _read(self, name: str, id_: str, data: str) -> LogEvent | None:
        kind = _LOG_EVENTS.get(name)
        return None if kind is None else LogEvent(id=id_, name=name, what=codec.decode(kind, json.loads(data)))

    def _is_last(self, event: LogEvent) -> bool:
        return isinstance(event.what, LogEnd)


class OverviewFeed(Feed[Seen]):
    """A list that is followed: `what` is `runs`, `queue` or `workers`, each event the list as `kind`. It has no end.

    Its events have no ids: after an interruption the list comes once more, whether it has changed or not.
    """

    def __init__(
        self,
        what: str,
        kind: type[Seen],
        retries: Retries,
        *,
        params: Mapping[str, object | None] | None = None,
        on_interruption: OnInterruption | None,
    ) -> None:
        super().__init__(
            f"the list of {what}",
            f"overview/{what}/events",
            retries,
            params=params,
            last_event_id=None,
            on_interruption=on_interruption,
        )
        self._what = what
        self._kind = kind

    def _read(self, name: str, id_: str, data: str) -> Seen | None:
        return codec.decode(self._kind, json.loads(data)) if name == self._what else None

    def _is_last(self, event: Seen) -> bool:
        return False


def is_stream(response: httpx.Response) -> bool:
    """Whether what was opened is a stream of events."""
    kind = response.headers.get("Content-Type", "")
    return response.status_code == httpx.codes.OK and kind.startswith("text/event-stream")
