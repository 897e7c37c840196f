"""`broadway run watch`: a run on one live screen, or line by line where nobody looks at a screen."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from broadway_client.async_client import AsyncClient
from broadway_client.cli.names import duration, job_name, plural
from broadway_client.cli.output import STYLES, Output, one_line
from broadway_client.cli.session import Session
from broadway_client.errors import ApiError, ClientError
from broadway_client.events import Interruption
from broadway_client.models import FoundJob, RunStatus, Worker

#: Seconds that the API may be away before watching is given up.
PATIENCE = 600.0
#: Seconds over which the rate is measured.
_RATE_OVER = 30.0
#: Failures that are shown.
_SHOWN = 5
#: Seconds between lines where it is no screen, unless the phase changes.
_LINE_EVERY = 5.0
#: Seconds between looks at the fleet and at failures.
_LOOK_EVERY = 2.0

_PHASES = {
    "ready": "not started",
    "pre_processing": "pre-processing",
    "students": "grading students",
    "post_processing": "post-processing",
}


@dataclass(kw_only=True)
class View:
    """What is known of the run."""

    status: RunStatus | None = None
    workers: Sequence[Worker] | None = None
    failures: Sequence[FoundJob] = ()
    interruption: Interruption | None = None
    away_since: datetime | None = None
    ended: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=10_000))

    def saw(self, status: RunStatus, now: float) -> None:
        """Take in an event."""
        self.status, self.interruption, self.away_since = status, None, None
        self.ended.append((now, status.ended_jobs))
        while len(self.ended) > 2 and self.ended[0][0] < now - _RATE_OVER:
            self.ended.popleft()

    def lost(self, interruption: Interruption, at: datetime) -> None:
        """Take in that nothing more is heard; `at`: the time of day."""
        self.interruption, self.away_since = interruption, self.away_since or at

    def rate(self, now: float) -> float | None:
        """Jobs that end each second, of late."""
        if len(self.ended) < 2 or now - self.ended[0][0] < 1:
            return None
        return max(0, self.ended[-1][1] - self.ended[0][1]) / (now - self.ended[0][0])


async def watch(session: Session, run_id: str) -> RunStatus:
    """Follow a run to its end; returns its last status. Raises ClientError."""
    view, output = View(), session.output
    async with session.async_client() as client:
        if output.as_json or not output.is_terminal:
            return await _lines(client, run_id, view, output)

        def now_shown() -> RenderableType:
            return screen(view, time.monotonic())

        looking = asyncio.create_task(_look(client, run_id, view))
        try:
            with Live(console=output.screen, get_renderable=now_shown, refresh_per_second=4):
                await _follow(client, run_id, view)
                with suppress(ClientError):  # the last failures may have come after the last look
                    await _look_once(client, run_id, view)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        return _last(view)


async def _follow(client: AsyncClient, run_id: str, view: View) -> None:
    def interrupted(interruption: Interruption) -> None:
        view.lost(interruption, datetime.now())

    async for event in client.run_events(run_id, patience=PATIENCE, on_interruption=interrupted):
        view.saw(event.run, time.monotonic())


def _last(view: View) -> RunStatus:
    assert view.status is not None, "a run has a first event"  # noqa: S101 - the API's promise, checked by its tests
    return view.status


# --- what events do not tell -----------------------------------------------------------------------------------------


async def _look(client: AsyncClient, run_id: str, view: View) -> None:
    """For ever: the fleet and the last failures."""
    while True:
        with suppress(ClientError):  # the events tell of an API that is away
            await _look_once(client, run_id, view)
        await asyncio.sleep(_LOOK_EVERY)


async def _look_once(client: AsyncClient, run_id: str, view: View) -> None:
    with suppress(ApiError):  # a course's token does not see the fleet
        view.workers = await client.workers()
    if view.status is None or not view.status.counts.get("failed"):
        return
    last = await client.find_jobs(run_id, states=["failed"], sort="finished", descending=True, limit=_SHOWN)
    view.failures = last.jobs[::-1]


# --- the screen ------------------------------------------------------------------------------------------------------


def screen(view: View, now: float) -> RenderableType:
    """All of it. While nothing is heard of the run, that which is true for a moment only is left out."""
    status = view.status
    if status is None:
        return Text("asking the API …" if view.interruption is None else _away(view.interruption), style="dim")
    parts: list[RenderableType] = [_head(status), _bar(status), _counts(status)]
    if view.interruption is None:
        parts += [Text(line, style="dim") for line in (_pace(view, status, now), _fleet(view.workers)) if line]
    parts += [
        Text(f"{plural(one.jobs, 'job')} cannot run: {one_line(one.message)}", style="yellow")
        for one in status.stranded
    ]
    if view.failures:
        parts += [Text(), Text("last failures", style="bold"), _failures(view.failures)]
    if view.interruption is not None:
        parts += [
            Text(f"as of {view.away_since:%H:%M:%S}", style="yellow"),
            Text(_away(view.interruption), style="yellow"),
        ]
    elif status.state.ended and status.counts.get("failed"):
        parts += [Text(f"why: broadway run report {status.grading_run_id}", style="bold")]
    return Group(*parts)


def _head(status: RunStatus) -> Text:
    state = status.state.value
    phase = Text(_PHASES.get(state, state), style=f"bold {STYLES.get(state, 'cyan')}")
    return Text.assemble(f"run {status.grading_run_id}  ", (f"{one_line(status.course)}  ", "dim"), phase)


def _bar(status: RunStatus) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(status.total, 1), completed=status.ended_jobs, width=50)
    row.add_row(bar, Text(f"{status.ended_jobs} of {status.total}"))
    return row


def _counts(status: RunStatus) -> Text:
    shown = Text()
    for name, count in status.counts.items():
        if count:
            shown.append(f"{count} {name}  ", style=STYLES.get(name, ""))
    return shown


def _pace(view: View, status: RunStatus, now: float) -> str:
    if status.state.ended:
        if status.started_at is None or status.finished_at is None:
            return ""
        return f"took {duration((status.finished_at - status.started_at).total_seconds())}"
    if not (rate := view.rate(now)):
        return ", ".join(_left(status, now - view.ended[-1][0]))
    speed = f"{rate:.1f} jobs a second" if rate >= 1 else f"{60 * rate:.1f} jobs a minute"
    if status.stranded:
        return speed
    return f"{speed}, about {duration(round((status.total - status.ended_jobs) / rate))} left"


def _left(status: RunStatus, age: float = 0.0) -> list[str]:
    """The time left by what was told `age` seconds ago; nothing once that time is over."""
    if status.eta_seconds is None or status.eta_seconds < age:
        return []
    return [f"about {duration(round(status.eta_seconds - age))} left"]


def _fleet(workers: Sequence[Worker] | None) -> str:
    if workers is None:
        return ""
    alive = [worker for worker in workers if worker.state.value in ("alive", "draining")]
    others = Counter(worker.state.value for worker in workers if worker not in alive)
    busy, slots = sum(len(worker.running) for worker in alive), sum(worker.slots for worker in alive)
    words = [plural(len(alive), "worker"), *([f"{busy} of {slots} slots busy"] if alive else [])]
    return ", ".join([*words, *(f"{count} {state}" for state, count in others.items())])


def _failures(failures: Sequence[FoundJob]) -> RenderableType:
    rows = [
        (one_line(job_name(one), 24), one.reason.value if one.reason else "", one_line(one.said)) for one in failures
    ]
    shown = Table.grid(padding=(0, 2))
    # Only what was said may be cut off: who failed, and why, must be read on any screen.
    shown.add_column(no_wrap=True, min_width=max(len(who) for who, _, _ in rows))
    shown.add_column(no_wrap=True, min_width=max(len(reason) for _, reason, _ in rows))
    shown.add_column(no_wrap=True, overflow="ellipsis")
    for who, reason, said in rows:
        shown.add_row(Text(who), Text(reason, style="red"), Text(said, style="dim"))
    return shown


def _away(interruption: Interruption) -> str:
    why = "it has closed the connection" if interruption.error is None else str(interruption.error)
    return f"the API is away, trying again: {one_line(why)}"


# --- line by line ----------------------------------------------------------------------------------------------------


async def _lines(client: AsyncClient, run_id: str, view: View, output: Output) -> RunStatus:
    told_at, told = float("-inf"), ""

    def interrupted(interruption: Interruption) -> None:
        if view.interruption is None:
            output.aside(_away(interruption))
        view.interruption = interruption

    async for event in client.run_events(run_id, patience=PATIENCE, on_interruption=interrupted):
        now = time.monotonic()
        view.saw(event.run, now)
        state = event.run.state.value
        if output.as_json:
            output.json(event.run.raw)
        elif state != told or event.run.state.ended or now - told_at >= _LINE_EVERY:
            told_at, told = now, state
            output.line(_line(event.run))
    return _last(view)


def _line(status: RunStatus) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in status.counts.items() if count)
    phase = _PHASES.get(status.state.value, status.state.value)
    return ", ".join([f"{datetime.now():%H:%M:%S} {phase}: {counts}", *_left(status)])
