"""Where a queued job stands in the urgent order, found without counting all that stands before it.

Jobs that were queued together, an *opening*, have ranks at equal distances, and leave the queue from its front. So each
store keeps a *frontier* for the jobs of one requirement and one priority: no job beyond it was ever handed out. What
is queued beyond it is known from the openings alone, by arithmetic; what is queued up to it are the few jobs that come
next or came back, and those are counted, in the store's index. A frontier that is too high costs time, and is never
wrong.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

#: A requirement and a priority.
Lane = tuple[str, int]

#: The frontier of a lane in which nothing is known from openings: all of it is counted.
EVERYTHING = math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a queued job stands: by priority, highest first, then by rank, then by id."""

    priority: int
    rank: float
    id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """Jobs of one lane that were queued together. The store gives each its rank by the very formula of `rank`."""

    lane: Lane
    first: float
    step: float
    jobs: int

    def rank(self, number: int) -> float:
        """That of the job with this number, from 0."""
        return self.first + number * self.step

    def below(self, rank: float) -> int:
        """How many have a lower rank: an estimate, put right by what the ranks around it really are."""
        number = self.jobs
        if rank < self.rank(self.jobs):
            number = max(0, int((rank - self.first) / self.step))
        while number > 0 and self.rank(number - 1) >= rank:
            number -= 1
        while number < self.jobs and self.rank(number) < rank:
            number += 1
        return number


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """Queued jobs of a lane that are to be counted."""

    lane: Lane
    end: tuple[float, str] | None = None  # those before it, by (rank, id); None: all
    ties: bool = False  # of them those of that very rank


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What is known of the queue without counting."""

    openings: Sequence[Opening]
    frontiers: Mapping[Lane, float]
    _beyond: dict[Opening, int] = field(default_factory=dict)

    def before(self, place: Place, counted: Collection[str]) -> tuple[int, list[Keys]]:
        """How many jobs that require one of `counted` stand before a place: a number, and what to count and add."""
        number = 0
        for opening in self.openings:
            requirement, priority = opening.lane
            if requirement in counted and priority >= place.priority:
                end = opening.jobs if priority > place.priority else opening.below(place.rank)
                number += max(0, end - self._handed_out(opening))
        lanes = {lane for lane in self.frontiers if lane[0] in counted and lane[1] > place.priority}
        keys = [self._up_to_frontier(lane) for lane in sorted(lanes)]
        for requirement in sorted(counted):
            lane, end_of = (requirement, place.priority), (place.rank, place.id)
            frontier = self.frontiers.get(lane)
            if frontier is not None and place.rank <= frontier:
                keys.append(Keys(lane=lane, end=end_of))
            else:
                keys += [self._up_to_frontier(lane)] if frontier is not None else []
                keys.append(Keys(lane=lane, end=end_of, ties=True))
        return number, keys

    def _handed_out(self, opening: Opening) -> int:
        """How many of an opening are not beyond the frontier, whatever became of them."""
        if opening not in self._beyond:
            frontier = self.frontiers.get(opening.lane)
            self._beyond[opening] = 0 if frontier is None else opening.below(math.nextafter(frontier, math.inf))
        return self._beyond[opening]

    def _up_to_frontier(self, lane: Lane) -> Keys:
        frontier = self.frontiers[lane]
        return Keys(lane=lane, end=None if frontier == EVERYTHING else (math.nextafter(frontier, math.inf), ""))
