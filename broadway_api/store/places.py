"""Places in the queue's urgent order, and the stretches between two of them, each one range of an index."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a queued job stands: by priority, highest first, then by rank, then by id."""

    priority: int
    rank: float
    id: str

    def __lt__(self, other: Place) -> bool:
        return (-self.priority, self.rank, self.id) < (-other.priority, other.rank, other.id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Jobs of one priority from `first` up to `end`, or all that are `above` and `below` some; None: no bound."""

    priority: int | None = None
    first: Place | None = None
    end: Place | None = None  # itself not in it
    above: int | None = None
    below: int | None = None


def stretches(first: Place | None, end: Place) -> list[Stretch]:
    """What lies from `first` (None: the head of the queue) up to `end`, which is not before it."""
    if first is None:
        return [Stretch(above=end.priority), Stretch(priority=end.priority, end=end)]
    if first.priority == end.priority:
        return [Stretch(priority=end.priority, first=first, end=end)]
    return [
        Stretch(priority=first.priority, first=first),
        Stretch(above=end.priority, below=first.priority),
        Stretch(priority=end.priority, end=end),
    ]
