"""What this process counts and measures, in Prometheus's words.

Counters and histograms are this process's own; add them up over all API processes. Gauges of the queue and the fleet
are the store's, the same in every process; take the largest. Labels have few values: states, reasons and methods of
ours, and of courses no more than COURSES.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from broadway_api import __version__
from broadway_api.domain import CourseQueue, JobState, Reason, Worker, WorkerState
from broadway_api.tallies import Durations, HistogramOfDurations, PlainCounter

#: Courses that are told apart; the jobs of further ones are counted as those of OTHER_COURSES, which no course is.
COURSES = 100
OTHER_COURSES = "*"

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: Seconds: a store answers in milliseconds, a job waits for minutes.
_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WAIT = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

# Without it each counter has a second series, which says when this process first counted.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it is not annotated


class Metrics:
    """The metrics of one API process."""

    def __init__(self, loop_lag: Callable[[], float] = lambda: 0.0) -> None:
        """`loop_lag`: seconds, asked at each scrape."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge("broadway_build_info", "The release that runs.", ["version"], registry=registry).labels(__version__).set(
            1
        )
        lag = Gauge("broadway_loop_lag_seconds", "Worst delay of the event loop in ten seconds.", registry=registry)
        lag.set_function(loop_lag)
        self._store_up = Gauge("broadway_store_up", "Whether the store answered this scrape.", registry=registry)
        self._queue = Gauge("broadway_queue_jobs", "Queued jobs.", ["course"], registry=registry)
        self._oldest = Gauge(
            "broadway_queue_oldest_seconds", "How long the oldest queued job has waited.", ["course"], registry=registry
        )
        self._running = Gauge("broadway_jobs_running", "Jobs that workers hold.", registry=registry)
        self._workers = Gauge("broadway_workers", "Registered workers.", ["state"], registry=registry)
        self._slots = Gauge("broadway_slots", "Slots of workers that are not lost.", registry=registry)
        self._busy = Gauge("broadway_slots_busy", "Those of them that hold a job.", registry=registry)
        self._outcomes = PlainCounter(
            "broadway_job_outcomes",
            "Results, lost workers and cancellations, by what the job is since (queued: it is tried again) and why.",
            ["state", "reason"],
            registry=registry,
        )
        self._expired = Counter("broadway_leases_expired", "Leases that ran out.", registry=registry)
        self._wait = Durations(_WAIT)
        HistogramOfDurations(
            "broadway_queue_wait_seconds", "From queued to handed out.", [], lambda: {(): self._wait}, registry=registry
        )
        HistogramOfDurations(
            "broadway_claim_seconds",
            "How long the store takes to hand out jobs.",
            [],
            lambda: {(): self._calls_of("claim_jobs", "exchange")},
            registry=registry,
        )
        HistogramOfDurations(
            "broadway_finish_seconds",
            "How long the store takes to accept a result.",
            [],
            lambda: {(): self._calls_of("finish_job", "finish_jobs", "exchange")},
            registry=registry,
        )
        self._calls: dict[str, Durations] = {}  # by method
        HistogramOfDurations(
            "broadway_store_seconds",
            "How long a call of the store takes.",
            ["method"],
            lambda: {(method,): calls for method, calls in self._calls.items()},
            registry=registry,
        )
        self._live_bytes = Counter(
            "broadway_live_output_bytes", "Output of running jobs that came for followers.", registry=registry
        )
        self._followers = Gauge("broadway_log_followers", "Who follows the log of a job.", registry=registry)
        self._faults = Counter("broadway_store_faults", "Calls that the store did not answer.", registry=registry)

    # --- what happens -------------------------------------------------------------------------------------------

    def store_answered(self, method: str, seconds: float) -> None:
        """A call of the store came back, with whatever answer."""
        calls = self._calls.get(method)
        if calls is None:
            calls = self._calls[method] = Durations(_LATENCY)
        calls.observe(seconds)

    def _calls_of(self, *methods: str) -> Durations:
        return Durations(_LATENCY, (self._calls[method] for method in methods if method in self._calls))

    def store_failed(self) -> None:
        """A call of the store got no answer."""
        self._faults.inc()

    def job_handed_out(self, waited: float) -> None:
        """A job was taken off the queue after so many seconds."""
        self._wait.observe(waited)

    def jobs_became(self, state: JobState, reason: Reason | None, number: int = 1) -> None:
        """So many jobs left their workers, or the queue, and are in this state since."""
        self._outcomes.count((state, reason or ""), number)

    def leases_expired(self, number: int) -> None:
        """So many jobs were taken from silent workers."""
        self._expired.inc(number)

    def live_output_came(self, size: int) -> None:
        """So many bytes of a running job's output came, and somebody follows it."""
        self._live_bytes.inc(size)

    def followers_are(self, number: int) -> None:
        """So many requests follow logs."""
        self._followers.set(number)

    # --- what is ------------------------------------------------------------------------------------------------

    def show_cluster(
        self,
        queue: Mapping[str, CourseQueue],
        workers: Sequence[tuple[Worker, Sequence[str], WorkerState]],
        now: datetime,
    ) -> None:
        """Take over what the store says of the queue and the fleet."""
        self._store_up.set(1)
        for gauge in (self._queue, self._oldest, self._workers):
            gauge.clear()
        for course, (depth, oldest) in _bounded(queue).items():
            self._queue.labels(course).set(depth)
            self._oldest.labels(course).set(max((now - oldest).total_seconds(), 0.0))
        states = Tally(state for _, _, state in workers)
        for state in WorkerState:
            self._workers.labels(state.value).set(states[state])
        present = [(worker, jobs) for worker, jobs, state in workers if state is not WorkerState.LOST]
        self._running.set(sum(len(jobs) for _, jobs, _ in workers))
        self._slots.set(sum(worker.slots for worker, _ in present))
        self._busy.set(sum(min(len(jobs), worker.slots) for worker, jobs in present))

    def hide_cluster(self) -> None:
        """Nothing is known of the queue and the fleet: the store is away."""
        self._store_up.set(0)
        for labelled in (self._queue, self._oldest, self._workers):
            labelled.clear()
        for gauge in (self._running, self._slots, self._busy):
            gauge.set(float("nan"))

    def exposition(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)


def _bounded(queue: Mapping[str, CourseQueue]) -> dict[str, tuple[int, datetime]]:
    """Depth and oldest of the courses with the longest queues, and of all others together."""
    by_depth = sorted(queue.items(), key=lambda entry: (-entry[1].depth, entry[0]))
    shown = {course: (own.depth, own.oldest) for course, own in by_depth[:COURSES]}
    if others := [own for _, own in by_depth[COURSES:]]:
        shown[OTHER_COURSES] = (sum(own.depth for own in others), min(own.oldest for own in others))
    return shown
