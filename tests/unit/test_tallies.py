"""What is counted in plain numbers is told as Prometheus's own counters and histograms tell it."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from broadway_api.tallies import Durations, HistogramOfDurations, PlainCounter

BOUNDS = (0.001, 0.25, 1, 3600)

disable_created_metrics()  # type: ignore[no-untyped-call]  # it is not annotated


@given(calls=st.lists(st.tuples(st.sampled_from(["a", "b", 'c"']), st.integers(0, 20_000).map(lambda n: n / 4))))
@example(calls=[("a", bound) for bound in BOUNDS])
def test_durations_are_told_as_a_histogram(calls: list[tuple[str, float]]) -> None:
    theirs = CollectorRegistry()
    each = Histogram("each", "By what.", ["what"], buckets=BOUNDS, registry=theirs)
    all_ = Histogram("all", "All.", buckets=BOUNDS, registry=theirs)
    series: dict[tuple[str, ...], Durations] = {}
    ours = CollectorRegistry()
    HistogramOfDurations("each", "By what.", ["what"], lambda: series, registry=ours)
    HistogramOfDurations("all", "All.", [], lambda: {(): Durations(BOUNDS, series.values())}, registry=ours)
    for what, seconds in calls:
        each.labels(what).observe(seconds)
        all_.observe(seconds)
        series.setdefault((what,), Durations(BOUNDS)).observe(seconds)
    assert generate_latest(ours).decode() == generate_latest(theirs).decode()


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["", "x\n"]), st.integers(0, 5))))
def test_numbers_are_told_as_a_counter(events: list[tuple[str, str, int]]) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    counter = Counter("events", "Events.", ["what", "why"], registry=theirs)
    plain = PlainCounter("events", "Events.", ["what", "why"], registry=ours)
    for what, why, number in events:
        counter.labels(what, why).inc(number)
        plain.count((what, why), number)
    assert generate_latest(ours).decode() == generate_latest(theirs).decode()
