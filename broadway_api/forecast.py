"""How long a run will still take: so many jobs left, so many at work, and what the last ones took."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from broadway_api.domain import Job, JobQuery, JobSort, JobState, JobType, RunSummary
from broadway_api.store.port import Store

#: Jobs that tell how long the next ones take, the last that ended; and as many more as run now, which is how many an
#: outage may have held up together. In all at most so many as a store reads in no time.
RECENT, MOST_RECENT = 100, 1_000

#: Seconds between two looks at a run's last jobs, however many ask. What a job takes does not change that fast.
LOOK_EVERY = 5.0

#: A silence so many times as long as the longest job beside it was an outage, and no job that took its time.
OUTAGE = 3.0

#: Runs whose last jobs are kept at hand.
_KEPT = 256

_LAST_ENDED = JobQuery(states=(JobState.SUCCEEDED, JobState.FAILED), sort=JobSort.FINISHED, descending=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """When a job was at work, in seconds since some moment that is the same for all."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long that was."""
        return self.end - self.start


class Forecast:
    """Tells the time left, of the last jobs that it reads from the store."""

    def __init__(self, store: Store, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._spans: OrderedDict[str, tuple[float, Sequence[Span]]] = OrderedDict()

    async def with_time_left(self, summary: RunSummary) -> RunSummary:
        """The summary with the seconds left: None before a student's job has ended, at the end, with stranded jobs."""
        if summary.run.state.ended or summary.stranded or not (ended := _ended(summary)):
            return summary
        if ended == sum(summary.counts.values()):
            return summary
        return replace(summary, seconds_left=seconds_left(summary, await self._last(summary)))

    async def _last(self, summary: RunSummary) -> Sequence[Span]:
        run_id = summary.run.id
        looked, spans = self._spans.get(run_id, (0.0, ()))
        if not spans or self._monotonic() - looked >= LOOK_EVERY:
            limit = min(RECENT + summary.counts.get(JobState.RUNNING, 0), MOST_RECENT)
            jobs, _ = await self._store.find_jobs(run_id, _LAST_ENDED, limit=limit, offset=0)
            spans = [span for job in jobs if job.type is JobType.STUDENT and (span := _span(job))]
            self._spans[run_id] = (self._monotonic(), spans)
            self._spans.move_to_end(run_id)
            if len(self._spans) > _KEPT:
                self._spans.popitem(last=False)
        return spans


def seconds_left(summary: RunSummary, last: Sequence[Span]) -> float | None:
    """By Little's law: what is left of the jobs, by as many as are at work now. None without any that has ended.

    Neither the time since the run's start nor that between two ends is looked at: in both may be any outage.
    """
    if not last:
        return None
    running = summary.counts.get(JobState.RUNNING, 0)
    # Before and after all others, and by itself.
    alone = sum(
        job is not None and not job.state.ended for job in (summary.pre_processing_job, summary.post_processing_job)
    )
    left = sum(summary.counts.values()) - _ended(summary)
    # Of those that run half is done, for all one knows.
    students = max(0.0, left - alone - running / 2)
    return usual_seconds(last) * (students / (running or at_once(last)) + alone)


def usual_seconds(last: Sequence[Span]) -> float:
    """The mean of what these jobs took, without those that an outage of the API, or of all graders, has held up.

    Nobody's job begins or ends in an outage. That is so, too, while the only slot is busy with a long one; hence it has
    to be far longer than any job that was not in it.
    """
    moments = sorted({moment for span in last for moment in (span.start, span.end)})
    silences = [Span(start=first, end=second) for first, second in pairwise(moments)]
    if silences:
        silence = max(silences, key=lambda span: span.seconds)
        others = [span for span in last if not (span.start <= silence.start and silence.end <= span.end)]
        if others and silence.seconds > OUTAGE * max(span.seconds for span in others):
            last = others
    return sum(span.seconds for span in last) / len(last)


def at_once(last: Sequence[Span]) -> float:
    """How many of these jobs were at work on the average, whenever any was."""
    busy, until = 0.0, float("-inf")
    for span in sorted(last, key=lambda span: span.start):
        busy += max(0.0, span.end - max(span.start, until))
        until = max(until, span.end)
    return sum(span.seconds for span in last) / busy if busy else 1.0


def _ended(summary: RunSummary) -> int:
    return sum(number for state, number in summary.counts.items() if state.ended)


def _span(job: Job) -> Span | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return Span(start=job.started_at.timestamp(), end=max(job.started_at, job.finished_at).timestamp())
