"""What an attack is: hostile stages as data, and a check of what became of them.

The scripts tell what they got away with: a line `breach: …` for each thing that should have been refused, and `tried`
at their end, so that an attack that never ran is not taken for one that was held off. What happened to the host is
checked from the host's side, for every attack alike (`targets.py`).

Each attack is bounded by itself (so many processes, so many bytes), for the day on which its defence is missing.
"""

from __future__ import annotations

import dataclasses
import enum
import textwrap
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from broadway_grader.domain import JobResult, Reason, Stage, StageResult
from broadway_grader.runtimes.port import Limits

#: Stand for the configured images until an attack is carried out: one with a POSIX shell and the usual small programs
#: (busybox will do), and one with Debian's coreutils and python3 for what a shell cannot do.
SHELL, PYTHON = "shell", "python"
MIB = 1024**2
#: Root in the container: what holds against it holds against everybody.
ROOT = "0:0"
#: A user that owns nothing.
STRANGER = "4711:4711"
#: What an attack's stage gets, so that filling it up takes no time.
MEMORY, PIDS = 96 * MIB, 48
#: Seconds that a stage has for its attack on a busy machine.
TIMEOUT = 60.0

_SHELL_WORDS = """
breach() { echo "breach: $*"; }
refused() { what=$1; shift; if "$@" >/dev/null 2>&1; then breach "$what"; fi; }
cannot_write() {
    for file in "$@"; do
        if [ -e "$file" ] && ( : >> "$file" ) 2>/dev/null; then breach "$file opened for writing"; fi
    done
}
"""
_PYTHON_WORDS = """
import ctypes, errno, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def breach(*words): print("breach:", *words, flush=True)
"""


class Level(enum.StrEnum):
    """How bad it is if an attack succeeds."""

    MUST = "must"  # such a grader takes no jobs
    SHOULD = "should"  # it is reported; another defence stands behind this one, or the machine decides


class Untried(Exception):
    """The attack was not carried out, which says nothing about the defence; the message is for people."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What there is to judge an attack by."""

    result: JobResult
    limits: Limits  # the runtime's
    grown: int  # bytes by which the grader's own memory peak grew meanwhile

    @property
    def last(self) -> StageResult:
        """The last stage that ran."""
        return self.result.stages[-1]

    @property
    def lines(self) -> list[str]:
        """What all stages printed to stdout."""
        return [line for stage in self.result.stages for line in stage.stdout.text.splitlines()]

    def breaches(self) -> list[str]:
        """What the attack says that it got away with."""
        return [line.removeprefix("breach:").strip() for line in self.lines if line.startswith("breach:")]


Check = Callable[[Evidence], Iterable[str]]


def in_vain(evidence: Evidence) -> Iterable[str]:
    """It was tried to the end, and everything was refused."""
    yield from evidence.breaches()
    if not evidence.breaches() and "tried" not in evidence.last.stdout.text.splitlines():
        raise Untried(f"it ended before all was tried: {ending(evidence.last)}")


def survived(evidence: Evidence) -> Iterable[str]:
    """However it ended, it got nothing: for bombs, which may well go off in their own hands."""
    yield from evidence.breaches()


def ended_for(*reasons: Reason) -> Check:
    """The last stage was ended, for one of these reasons."""

    def check(evidence: Evidence) -> Iterable[str]:
        yield from evidence.breaches()
        if evidence.last.reason not in reasons:
            yield f"expected {' or '.join(reasons)}, but {ending(evidence.last)}"

    return check


def both(*checks: Check) -> Check:
    """All of these checks hold."""

    def check(evidence: Evidence) -> Iterable[str]:
        for each in checks:
            yield from each(evidence)

    return check


def stopped_in_time(evidence: Evidence) -> Iterable[str]:
    """The last stage was ended by its timeout, soon enough."""
    yield from ended_for(Reason.TIMEOUT)(evidence)
    took = evidence.last.finished_at - evidence.last.started_at
    if took > timedelta(seconds=30):
        yield f"it was ended only after {took.total_seconds():.0f} s"


def ending(stage: StageResult) -> str:
    """How a stage ended, in a few words."""
    how = f"it ended with exit code {stage.exit_code}" if stage.reason is None else str(stage.reason)
    details = [detail for detail in (stage.message, stage.stderr.text.strip().rpartition("\n")[2]) if detail]
    return ": ".join([how, *details])[:300]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """One thing that hostile code may try."""

    name: str
    tries: str  # what it tries, one line for people
    stages: Sequence[Stage]  # the images are SHELL or PYTHON
    check: Check = in_vain
    level: Level = Level.MUST
    runtimes: frozenset[str] = frozenset()  # those that it is about; empty: all
    at_start: bool = False  # one harmless shell script, tried whenever a grader starts
    neighbour: Stage | None = None  # runs meanwhile, as a job of its own; has begun once /job/begun is there

    def applies_to(self, runtime: str, slots: int) -> bool:
        """Whether it says anything about this runtime with so many slots."""
        return (not self.runtimes or runtime in self.runtimes) and (self.neighbour is None or slots > 1)


def sh(script: str, **options: Any) -> Stage:
    """A stage of an attack that is a shell script."""
    return _stage(SHELL, ["sh", "-c", f"{_SHELL_WORDS}{script}\necho tried"], options)


def python(script: str, words: str = "", **options: Any) -> Stage:
    """A stage of an attack that is a Python script; `words` are more that it may use."""
    program = f'{_PYTHON_WORDS}{words}{textwrap.dedent(script)}\nprint("tried")'
    return _stage(PYTHON, ["python3", "-I", "-c", program], options)


def _stage(image: str, entry_point: Sequence[str], options: dict[str, Any]) -> Stage:
    settings: dict[str, Any] = {"image": image, "memory": MEMORY, "pids": PIDS, "timeout": TIMEOUT, "working_dir": "/"}
    return Stage(**(settings | {"entry_point": entry_point} | options))
