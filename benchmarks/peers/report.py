"""The comparison as tables, and as figures with bounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure
from benchmarks.peers.systems import BROADWAY, PEERS, System
from benchmarks.peers.trial import Trial

#: The trials of each system, one a round.
Trials = Mapping[str, Sequence[Trial]]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Something that a trial tells, less of which is better."""

    name: str
    of: Callable[[Trial], float]
    shown: Callable[[float], str]
    why_behind: str  # why Broadway is behind a peer, where it is
    bounded: bool = True  # whether Broadway has to be ahead of those that it must beat


MEASURES = (
    Measure(
        name="jobs/s",
        of=lambda trial: 1 / trial.jobs_per_second,
        shown=lambda value: f"{1 / value:.0f}",
        why_behind="HTTP and JSON in Python on both sides, and claims, results and logs on the disk before each answer",
    ),
    Measure(
        name="CPU s per 1,000 jobs",
        of=lambda trial: trial.cpu,
        shown=lambda value: f"{value:.2f}",
        why_behind="HTTP and JSON in Python on both sides, and a claim, a fenced result and a log are written",
    ),
    Measure(
        name="latency p50, ms",
        of=lambda trial: 1000 * statistics.median(trial.latencies),
        shown=lambda value: f"{value:.1f}",
        why_behind="a run is handed in by two requests, each on the disk before its answer; then a claim is",
        bounded=False,
    ),
    Measure(
        name="latency p99, ms",
        of=lambda trial: 1000 * statistics.quantiles(trial.latencies, n=100)[98],
        shown=lambda value: f"{value:.1f}",
        why_behind="as p50",
        bounded=False,
    ),
)


def table(trials: Trials) -> str:
    """Medians of all systems, Markdown."""
    lines = [
        f"| | {' | '.join(measure.name for measure in MEASURES)} | on the disk before it is acknowledged |",
        "|---|" + "---|" * (len(MEASURES) + 1),
    ]
    for system in BROADWAY + PEERS:
        cells = [measure.shown(_median(measure, trials[system.name])) for measure in MEASURES]
        lines.append(f"| {system.name} | {' | '.join(cells)} | {system.on_disk} |")
    return "\n".join(lines)


def behind(trials: Trials) -> str:
    """Where Broadway is not ahead, and why, as a list."""
    lines = []
    for ours in BROADWAY:
        for measure in MEASURES:
            mine = _median(measure, trials[ours.name])
            ahead = [
                f"{peer.name} ({measure.shown(theirs)})"
                for peer in PEERS
                if (theirs := _median(measure, trials[peer.name])) <= mine
            ]
            if ahead:
                shown = f"{ours.name}, {measure.name} ({measure.shown(mine)})"
                lines.append(f"* {shown}: behind {', '.join(ahead)}: {measure.why_behind}.")
    return "\n".join(lines) or "nowhere"


def figures(trials: Trials) -> list[Figure]:
    """How far Broadway is ahead of the best of those that it must beat, and of all: medians of each round's ratio."""
    return [
        Figure(
            what=f"{ours.name}: {measure.name}, against the best of {whom}",
            value=statistics.median(_ratios(trials, ours, peers, measure)),
            at_least=1.0 if must else None,
            aim=None if must else 1.0,
        )
        for ours in BROADWAY
        for measure in MEASURES
        if measure.bounded
        for whom, peers, must in (
            ("Celery and RQ", [peer for peer in PEERS if peer.must_beat], True),
            ("all", PEERS, False),
        )
    ]


def _ratios(trials: Trials, ours: System, peers: Sequence[System], measure: Measure) -> list[float]:
    rounds = len(trials[ours.name])
    return [
        min(measure.of(trials[peer.name][number]) for peer in peers) / measure.of(trials[ours.name][number])
        for number in range(rounds)
    ]


def _median(measure: Measure, trials: Sequence[Trial]) -> float:
    return statistics.median(map(measure.of, trials))
