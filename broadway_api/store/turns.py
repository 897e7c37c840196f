"""In which of its two orders the queue is served next, and who shares what: rules that both stores keep.

The *urgent* order is by priority, and fair among jobs of one priority. The *fair* order knows no priorities: it is that
of the ranks alone, in which every course comes round. Of any four jobs that an API process hands out to one kind of
worker (those with the same labels), one is the first of the fair order. So whatever arrives with whatever priority
takes three of four turns at most, and a job that has `n` before it in the fair order waits for `4 n` hand-outs at most.

Ranks are given by start-time fair queueing (Goyal, Vin and Cheng, 1996) to *flows*, each of which takes its turns
behind one another and beside the other flows: a course's jobs of one priority are one flow, its pre- and
post-processing jobs of that priority another. Those are few, and students wait for them, so they begin at once where
others take their place behind the course's last job.

Jobs that no worker can run are *stranded*. They count for nobody's turn: neither do others wait for theirs, nor does
their course, once they are queued in flows of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from broadway_api.domain import JobType, Run

#: Of so many hand-outs one goes to whoever is first in the fair order.
FAIR_EVERY = 4

#: A worker that was heard of within this time may come back for what only it can run.
LATELY = timedelta(minutes=5)


class Turns:
    """Counts what this process hands out to each kind of worker."""

    def __init__(self) -> None:
        self._taken: Counter[frozenset[tuple[str, str]]] = Counter()

    def is_fair(self, labels: Mapping[str, str]) -> bool:
        """Whether the next job for such a worker is the first of the fair order."""
        return self._taken[frozenset(labels.items())] % FAIR_EVERY == FAIR_EVERY - 1

    def next(self, labels: Mapping[str, str], most: int) -> tuple[bool, int]:
        """What `is_fair` says of the next turn for such a worker, and of how many from that one on, up to `most`."""
        left = FAIR_EVERY - 1 - self._taken[frozenset(labels.items())] % FAIR_EVERY
        return (False, min(left, most)) if left else (True, 1)

    def ahead(self) -> Turns:
        """The same turns, to be planned with: what is taken of them is not taken of these."""
        turns = Turns()
        turns._taken = self._taken.copy()
        return turns

    def took(self, labels: Mapping[str, str], number: int = 1) -> None:
        """Such a worker got so many jobs."""
        self._taken[frozenset(labels.items())] += number


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """Jobs that take their turns one behind the other."""

    course: str
    priority: int
    in_front: bool  # pre- and post-processing
    stranded: str  # what they require, if nobody has that; else nothing

    @classmethod
    def of(cls, run: Run, job_type: JobType, stranded: str) -> Flow:
        """The flow that a phase of a run joins."""
        return cls(
            course=run.course,
            priority=run.priority,
            in_front=job_type is not JobType.STUDENT,
            stranded=stranded,
        )
