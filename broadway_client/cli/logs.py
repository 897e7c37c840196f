"""`broadway job log`: what a job printed, or prints, made harmless to terminals."""

from __future__ import annotations

import sys
from collections import defaultdict

from broadway_client.cli.output import Output, one_line
from broadway_client.client import Client
from broadway_client.events import Interruption, LogEvent
from broadway_client.models import JobChange, JobLog, LogEnd, Printed, StageChange

#: Seconds that the API may be away before following is given up.
PATIENCE = 600.0

STREAMS = ("stdout", "stderr")


class Printer:
    """Prints pieces of output: stdout to stdout, stderr to stderr and in red."""

    def __init__(self, output: Output, stream: str | None) -> None:
        self._output = output
        self._outputs = {"stdout": output, "stderr": Output(as_json=False, stdout=sys.stderr)}
        self._streams = STREAMS if stream is None else (stream,)
        self._stage: int | None = None
        self._kept: defaultdict[str, str] = defaultdict(str)
        self._at_beginning = True  # of a line
        self.has_printed = False

    def print(self, stage: int, stream: str, text: str) -> None:
        """Print what a stage wrote to one of its streams."""
        if stream not in self._streams or not text:
            return
        if stage != self._stage:
            self.end()
            if self._output.is_terminal:
                self.aside(f"--- stage {stage} ---", style="bold")
            self._stage = stage
        # Half of an end of line would be shown as something that a terminal must not obey.
        text = self._kept[stream] + text
        self._kept[stream] = "\r" if text.endswith("\r") else ""
        self._write(stream, text.removesuffix(self._kept[stream]))

    def aside(self, text: str, style: str = "dim") -> None:
        """Say something between two pieces, on a line of its own where a person looks."""
        if self._output.is_terminal and not self._at_beginning:
            self._output.raw("\n")
        self._at_beginning = True
        self._output.aside(text, style=style)

    def begin_attempt(self, attempt: int) -> None:
        """What comes now is another attempt's."""
        self.end()
        self.aside(f"--- attempt {attempt} ---", style="bold")
        self._stage = None

    def end(self) -> None:
        """Nothing more comes of a stage."""
        for stream, text in self._kept.items():
            self._write(stream, text)
        self._kept.clear()

    def _write(self, stream: str, text: str) -> None:
        if text:
            self._outputs[stream].raw(text, style="red" if stream == "stderr" else "")
            self._at_beginning = text.endswith("\n")
            self.has_printed = True


def show(output: Output, found: JobLog, stream: str | None) -> bool:
    """Print a log; whether it has anything."""
    printer = Printer(output, stream)
    for one in found.stages:
        for name, text in (("stdout", one.stdout), ("stderr", one.stderr)):
            printer.print(one.stage, name, text)
    printer.end()
    return printer.has_printed


def follow(output: Output, client: Client, job_id: str, stage: int | None, stream: str | None) -> None:
    """Print what a job prints until it has ended. Raises ClientError."""
    follower = _Follower(output, stream)
    for event in client.follow_log(job_id, stage, patience=PATIENCE, on_interruption=follower.interrupted):
        if output.as_json:
            output.json({"event": event.name, "id": event.id, **event.what.raw})
        else:
            follower.saw(event)


class _Follower:
    def __init__(self, output: Output, stream: str | None) -> None:
        self._printer = Printer(output, stream)
        self._output = output
        self._attempt: int | None = None
        self._state = ""
        self._is_away = False

    def interrupted(self, interruption: Interruption) -> None:
        if not self._is_away:
            why = "it has closed the connection" if interruption.error is None else str(interruption.error)
            self._printer.aside(f"the API is away, trying again: {one_line(why)}", style="yellow")
        self._is_away = True

    def saw(self, event: LogEvent) -> None:
        """Show one event."""
        self._is_away = False
        match event.what:
            case LogEnd() as end:
                self._end(end)
            case JobChange() as job:
                self._job(job)
            case Printed() as piece:
                self._begin(piece.attempt)
                if piece.dropped:
                    self._printer.aside(f"… {piece.dropped} bytes of {piece.stream} are not shown …")
                self._printer.print(piece.stage, piece.stream, piece.text)
            case StageChange(truncated=truncated, state="running") if truncated:
                self._printer.aside(f"… of {' and '.join(truncated)} no more is kept …")

    def _job(self, job: JobChange) -> None:
        state, before = job.state.value, self._state
        self._state = state
        if state in ("waiting", "queued"):
            self._printer.aside(f"it is {state}{' again' if before == 'running' else ''}")

    def _begin(self, attempt: int) -> None:
        if attempt != self._attempt and (self._attempt is not None or attempt > 1):
            self._printer.begin_attempt(attempt)
        self._attempt = attempt

    def _end(self, end: LogEnd) -> None:
        self._printer.end()
        if end.dropped:
            self._printer.aside(f"{end.dropped} bytes were not shown; all of it: broadway job log {end.job_id}")
        printed = "" if self._printer.has_printed else " and has printed nothing"
        why = f": {end.reason.value}" if end.reason else ""
        self._printer.aside(f"it has {_ENDED.get(end.state.value, end.state.value)}{why}{printed}")


_ENDED = {"cancelled": "been cancelled"}
