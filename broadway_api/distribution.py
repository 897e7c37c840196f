"""How values spread, for a histogram. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Bars of a histogram.
BARS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """How many values lie between two, the upper one left out of all bars but the last."""

    first: float
    last: float
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """How values spread."""

    median: float
    highest: float
    bars: tuple[Bar, ...]


def distribution(values: Sequence[float]) -> Distribution | None:
    """The values over bars of one width, from 0 (or the least, if that is negative) up; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    lowest, highest = min(0.0, ordered[0]), ordered[-1]
    width = (highest - lowest) / BARS
    median = ordered[len(ordered) // 2]
    if width <= 0:
        only = Bar(first=lowest, last=highest, number=len(ordered))
        return Distribution(median=median, highest=highest, bars=(only,))
    numbers = [0] * BARS
    for value in ordered:
        numbers[min(int((value - lowest) / width), BARS - 1)] += 1
    bars = (
        Bar(first=lowest + place * width, last=lowest + (place + 1) * width, number=number)
        for place, number in enumerate(numbers)
    )
    return Distribution(median=median, highest=highest, bars=tuple(bars))
