"""What a running job has printed of late: pieces of the log that it will have, each at its place in that log.

A place is a number of bytes of a stream's log before it, in UTF-8, secrets struck out. Graders send pieces of the very
text that they report in the end, so pieces that come twice, by whatever way, are known by their places; a gap between
two of them is what was dropped; and whoever has read up to some place can go on there, at any API process, also in the
log of the job that has ended.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

#: Bytes of one job's output that are kept for those who begin to follow it, or are slow.
TAIL_BYTES = 262_144

#: Pieces of one job that are kept, however small they are.
TAIL_PIECES = 4_096

#: A stage of an attempt by its index, and one of its two streams.
StreamName = tuple[int, str]

STREAMS = ("stdout", "stderr")

_ID = re.compile(r"(?P<attempt>\d{1,9})(?P<places>(?:-\d{1,12}\.\d{1,12}){0,100})(?P<end>-end)?", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Some bytes of a stream's log, whole characters of UTF-8."""

    stage: int
    stream: str
    start: int  # its place
    data: bytes

    @property
    def end(self) -> int:
        """The place of what comes after it."""
        return self.start + len(self.data)

    def after(self, place: int) -> Piece | None:
        """What of it is not before a place; None if that is nothing."""
        if place <= self.start:
            return self
        if place >= self.end:
            return None
        return Piece(stage=self.stage, stream=self.stream, start=place, data=self.data[place - self.start :])


@dataclass(frozen=True, kw_only=True, slots=True)
class StageNews:
    """How far a stage has come."""

    stage: int
    ended: bool
    exit_code: int | None = None
    reason: str | None = None
    truncated: tuple[str, ...] = ()  # streams of which no more is kept


class Tail:
    """The last pieces of one attempt, and how far its stages are."""

    def __init__(self, attempt: int, *, limit: int = TAIL_BYTES) -> None:
        self.attempt = attempt
        self.stages: dict[int, StageNews] = {}
        self._limit = limit
        self._pieces: deque[Piece] = deque()
        self._size = 0
        self._dropped = 0  # pieces that are no longer there
        self._ends: dict[StreamName, int] = {}

    def add(self, piece: Piece) -> None:
        """Keep what is new of a piece, and no more than the limit of all."""
        name = (piece.stage, piece.stream)
        new = piece.after(self._ends.get(name, 0))
        if new is None:
            return
        self._ends[name] = new.end
        self._pieces.append(new)
        self._size += len(new.data)
        while len(self._pieces) > 1 and (self._size > self._limit or len(self._pieces) > TAIL_PIECES):
            self._size -= len(self._pieces.popleft().data)
            self._dropped += 1

    def since(self, index: int) -> tuple[list[Piece], int]:
        """The pieces from the `index`-th on that are there, and the index to ask with next."""
        pieces = list(islice(self._pieces, max(0, index - self._dropped), None))
        return pieces, self._dropped + len(self._pieces)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How far somebody has read, as the id of the last event that they were told."""

    attempt: int
    places: Mapping[StreamName, int] = field(default_factory=dict)
    to_the_end: bool = False

    @classmethod
    def parse(cls, text: str | None) -> Reading | None:
        """Read the text of one; None if it is none."""
        match = _ID.fullmatch(text or "")
        if match is None:
            return None
        stages = [pair.split(".") for pair in match["places"].split("-")[1:]]
        places = {
            (stage, stream): int(place)
            for stage, pair in enumerate(stages)
            for stream, place in zip(STREAMS, pair, strict=True)
        }
        return cls(attempt=int(match["attempt"]), places=places, to_the_end=match["end"] is not None)

    def __str__(self) -> str:
        """`attempt-stdout.stderr-…`, with a pair of places for each stage."""
        last = max((stage for stage, _ in self.places), default=-1)
        pairs = (".".join(str(self.places.get((stage, name), 0)) for name in STREAMS) for stage in range(last + 1))
        return "-".join([str(self.attempt), *pairs, *(["end"] if self.to_the_end else [])])


def pieces_of(stage: int, texts: Iterable[tuple[str, str]], size: int) -> Iterable[Piece]:
    """A stage's whole log, given by streams, in pieces of about so many bytes."""
    for stream, text in texts:
        data, start = text.encode(errors="replace"), 0
        while start < len(data):
            end = min(start + size, len(data))
            while end < len(data) and data[end] & 0xC0 == 0x80:  # in the middle of a character
                end += 1
            yield Piece(stage=stage, stream=stream, start=start, data=data[start:end])
            start = end
