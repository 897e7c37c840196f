"""What goes wrong, when and where: laid down before anything starts, from the seed alone."""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Callable, Iterator, Sequence

LEASE = 3  # seconds
HEARTBEAT = 1  # seconds

#: Stands for whichever node of the replica set is its primary at the time.
PRIMARY = "primary"
EVERYTHING = "everything"


class Kind(enum.StrEnum):
    """What may happen to a process."""

    KILL = "kill -9"
    FREEZE = "freeze"  # SIGSTOP for longer than a lease, then SIGCONT
    TERMINATE = "terminate"  # SIGTERM, and a new start after its end
    CUT_OFF = "cut off"  # no network for longer than a lease
    STEP_DOWN = "step down"  # the primary hands over


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong."""

    at: float  # seconds after the campaign began
    kind: Kind
    target: str  # the name of a process, PRIMARY or EVERYTHING
    seconds: float  # until it is over; after a death, until the new start

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.kind} {self.target} for {self.seconds:.1f} s"


def plan(
    seed: int, seconds: float, *, graders: Sequence[str], apis: Sequence[str], nodes: Sequence[str]
) -> list[Fault]:
    """The faults of a campaign of that length, in order. The same arguments give the same faults."""
    faults = [
        *_at_random(random.Random(f"{seed}/graders"), seconds, _grader_fault, graders, every=1.2),  # noqa: S311
        *_at_random(random.Random(f"{seed}/apis"), seconds, _api_fault, apis, every=12.0 / len(apis) ** 0.5),  # noqa: S311
        *_deaths_of_everything(random.Random(f"{seed}/everything"), seconds),  # noqa: S311
    ]
    if nodes:
        chance = random.Random(f"{seed}/nodes")  # noqa: S311
        # Never two at once: a set of three that has lost two is away, not at fault.
        faults += _at_random(chance, seconds, _node_fault, nodes, every=2.0, apart=9.0)
    return sorted(faults, key=lambda fault: fault.at)


def _at_random(
    chance: random.Random,
    seconds: float,
    draw: Callable[[random.Random, float, str], Fault],
    targets: Sequence[str],
    *,
    every: float,
    apart: float = 0.0,
) -> Iterator[Fault]:
    at = 0.0
    while (at := at + apart + chance.expovariate(1 / every)) < seconds:
        yield draw(chance, at, chance.choice(targets))


def _grader_fault(chance: random.Random, at: float, target: str) -> Fault:
    kinds = [Kind.KILL, Kind.FREEZE, Kind.TERMINATE, Kind.CUT_OFF]
    kind = chance.choices(kinds, [68, 16, 8, 8])[0]
    long = kind in (Kind.FREEZE, Kind.CUT_OFF)
    return Fault(
        at=at, kind=kind, target=target, seconds=LEASE + chance.uniform(0.2, 2.5) if long else chance.uniform(0, 1)
    )


def _api_fault(chance: random.Random, at: float, target: str) -> Fault:
    kind = chance.choices([Kind.KILL, Kind.FREEZE, Kind.TERMINATE], [70, 10, 20])[0]
    long = kind is Kind.FREEZE
    return Fault(
        at=at, kind=kind, target=target, seconds=LEASE + chance.uniform(0.5, 2) if long else chance.uniform(0, 1)
    )


def _node_fault(chance: random.Random, at: float, target: str) -> Fault:
    kind = chance.choices([Kind.KILL, Kind.FREEZE, Kind.STEP_DOWN], [60, 20, 20])[0]
    if kind is Kind.STEP_DOWN or chance.random() < 0.7:
        target = PRIMARY
    return Fault(at=at, kind=kind, target=target, seconds=chance.uniform(0.5, 4))


def _deaths_of_everything(chance: random.Random, seconds: float) -> Iterator[Fault]:
    """One in the middle of each minute, at least one."""
    for minute in range(max(1, round(seconds / 60))):
        length = min(60.0, seconds)
        at = minute * length + length * chance.uniform(0.4, 0.6)
        yield Fault(at=at, kind=Kind.KILL, target=EVERYTHING, seconds=0.2)
