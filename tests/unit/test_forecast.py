"""How long a run will still take, whatever has happened to it before."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_api.domain import Job, JobQuery, JobState, JobType, RunState, RunSummary, Stranded
from broadway_api.forecast import LOOK_EVERY, MOST_RECENT, RECENT, Forecast, Span, seconds_left
from tests.unit.test_wire import JOB, NOW, RUN

SOME = [Span(start=0, end=8), Span(start=0, end=12)]


def summary(**counts: int) -> RunSummary:
    return RunSummary(
        run=replace(RUN, state=RunState.STUDENTS),
        counts={JobState(name): number for name, number in counts.items()},
        reasons={},
        queued={},
        pre_processing_job=None,
        post_processing_job=None,
    )


POST = replace(JOB, type=JobType.POST_PROCESSING)


@pytest.mark.parametrize(
    ("given_summary", "last", "seconds"),
    [
        (summary(succeeded=2, queued=6, running=4), SOME, 10 * (6 + 2) / 4),
        (summary(succeeded=2, running=4), SOME, 5),
        (summary(succeeded=2, queued=6), SOME, 10 * 6 / (20 / 12)),  # nothing runs just now
        (summary(succeeded=2, queued=6), [Span(start=0, end=1), Span(start=9, end=10)], 6),  # nor did it meanwhile
        (summary(succeeded=2, queued=6), [Span(start=3, end=3)], 0),
        (replace(summary(succeeded=2, running=2, waiting=1), post_processing_job=POST), SOME, 10 * (1 / 2 + 1)),
        (replace(summary(succeeded=2, running=1), post_processing_job=replace(POST, state=JobState.RUNNING)), SOME, 10),
        (summary(succeeded=1, queued=6, running=1), [], None),
    ],
)
def test_what_is_left_takes_as_long_as_what_was(
    given_summary: RunSummary, last: Sequence[Span], seconds: float | None
) -> None:
    assert seconds_left(given_summary, last) == (None if seconds is None else pytest.approx(seconds))


class Simulation:
    """Jobs of 8 to 12 s on so many slots, one after another, and one outage in which nothing is heard of any."""

    def __init__(self, random: Random, slots: int, outage: Span, *, of_graders: bool) -> None:
        self._random = random
        self._outage = outage
        self._of_graders = of_graders
        self._slots = [0.0] * slots

    def ended(self, number: int) -> list[Span]:
        return sorted((self._next() for _ in range(number)), key=lambda span: span.end)

    def _next(self) -> Span:
        start = heapq.heappop(self._slots)
        seconds, outage = self._random.uniform(8, 12), self._outage
        if outage.start <= start < outage.end:
            start = outage.end
        end = start + seconds
        if start < outage.start < end:
            # A grader that died began anew; one whose result nobody took has tried again and again.
            start = outage.end if self._of_graders else start
            end = outage.end + (seconds if self._of_graders else self._random.uniform(0, 5))
        heapq.heappush(self._slots, end)
        return Span(start=start, end=end)


@given(
    random=st.randoms(use_true_random=True),
    slots=st.integers(1, 50),
    begin=st.floats(0.1, 0.95),
    length=st.floats(60, 100_000),
    of_graders=st.booleans(),
)
def test_an_outage_does_not_make_the_rest_slower(
    random: Random, slots: int, begin: float, length: float, of_graders: bool
) -> None:
    number = max(40, 4 * slots)
    start = begin * 10 * number / slots
    fleet = Simulation(random, slots, Span(start=start, end=start + length), of_graders=of_graders)
    last = fleet.ended(number)[-RECENT - slots :]
    left = seconds_left(summary(succeeded=number, running=slots, queued=1_000), last)
    assert left == pytest.approx(10 * (1_000 + slots / 2) / slots, rel=0.15)


@given(st.lists(st.floats(1, 100), min_size=20, max_size=60), st.randoms(use_true_random=False))
def test_long_jobs_that_come_again_and_again_are_no_outage(lengths: list[float], random: Random) -> None:
    """On one slot, where each is a silence, too."""
    lengths = [*lengths, 100, 100]
    random.shuffle(lengths)
    last, now = [], 0.0
    for seconds in lengths:
        last.append(Span(start=now, end=now + seconds))
        now += seconds
    assert seconds_left(summary(succeeded=9, running=1, queued=1), last) == pytest.approx(
        1.5 * sum(lengths) / len(lengths)
    )


class Store:
    """A store that counts how often it is asked."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = list(jobs)
        self.limits: list[int] = []

    async def find_jobs(self, run_id: str, query: JobQuery, *, limit: int, offset: int) -> tuple[list[Job], int]:
        self.limits.append(limit)
        return self.jobs[:limit], len(self.jobs)


STUDENT = replace(JOB, state=JobState.SUCCEEDED, started_at=NOW, finished_at=NOW + timedelta(seconds=10))


@pytest.mark.parametrize(
    ("given_summary", "seconds"),
    [
        (summary(succeeded=1, running=1), 5),
        (summary(running=1), None),
        (summary(succeeded=8), None),
        (replace(summary(cancelled=5, queued=1), run=replace(RUN, state=RunState.FAILED)), None),
        (replace(summary(succeeded=2, queued=6), stranded=(Stranded(requirement="", jobs=1, message="m"),)), None),
    ],
)
async def test_no_time_is_told_that_nobody_knows(given_summary: RunSummary, seconds: float | None) -> None:
    store: Any = Store(STUDENT)
    assert (await Forecast(store).with_time_left(given_summary)).seconds_left == seconds


async def test_what_comes_before_the_students_says_nothing_of_them() -> None:
    store: Any = Store(replace(STUDENT, type=JobType.PRE_PROCESSING))
    assert (await Forecast(store).with_time_left(summary(succeeded=1, queued=4))).seconds_left is None


async def test_the_last_jobs_are_read_now_and_then() -> None:
    store, now = Store(STUDENT), 0.0
    port: Any = store
    forecast = Forecast(port, monotonic=lambda: now)
    for running in (4, 5, 10_000):
        for _ in range(3):
            await forecast.with_time_left(summary(succeeded=1, running=running))
        now += LOOK_EVERY
    assert store.limits == [RECENT + 4, RECENT + 5, MOST_RECENT]
