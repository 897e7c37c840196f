"""What one stream of a stage has printed, told piece by piece while it grows: each a piece of the log that it will be.

Nothing is kept here: what a runtime keeps for the log is read once more. A place is a number of bytes of the log before
it, in UTF-8 with secrets struck out, and the pieces of a stream, laid one after the other, are what `Mask` makes of it
as a whole. So no piece ends within a character, or within what may yet become a secret.
"""

from __future__ import annotations

import codecs
import dataclasses

from broadway_grader.domain import Output
from broadway_grader.masking import Mask
from broadway_grader.runtimes.output import BoundedOutput

#: Bytes that are masked at a time. A secret is shorter; what looks like one and is as long is told at the end only.
WINDOW = 262_144


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """Some whole characters of a log, and their place in it."""

    start: int
    text: str


class LiveStream:
    """One stream, told from its beginning."""

    def __init__(self, output: BoundedOutput) -> None:
        self._output = output
        self._log: Output | None = None
        self._is_told = False
        self.rewind()

    @property
    def size(self) -> int:
        """Bytes that are there, whether told or not."""
        return self._output.size

    @property
    def is_truncated(self) -> bool:
        """Whether no more is kept of it."""
        return self._output.dropped_bytes > 0 or (self._log is not None and self._log.truncated)

    @property
    def is_told(self) -> bool:
        """Whether it has ended, and was told to its end."""
        return self._is_told

    def end(self, log: Output) -> None:
        """It has ended, and this is its log, of which nothing is struck out yet."""
        self._log = log
        self._output = BoundedOutput(0)  # the log has all of it

    def rewind(self) -> None:
        """Begin again."""
        self._read = self._place = 0
        self._is_told = False

    def take(self, mask: Mask, limit: int) -> Piece | None:
        """What is new, or the last `limit` bytes of it. Slow for megabytes."""
        if self._is_told:
            return None
        log, told = self._log, b""
        if log is None:
            while piece := self._next(mask):
                told = (told + piece)[-limit:]
                self._place += len(piece)
        else:
            whole = mask.text(log.text, truncated=log.truncated).encode(errors="replace")
            told, self._place, self._is_told = whole[self._place :][-limit:], len(whole), True
        text = told.decode(errors="ignore")  # its first character may be cut
        return Piece(start=self._place - len(text.encode()), text=text) if text else None

    def _next(self, mask: Mask) -> bytes:
        """The next piece as it will stand in the log; nothing if there is none so far."""
        data = self._output.read(self._read, WINDOW)
        whole = _whole_characters(data)
        taken, masked = mask.beginning(data, whole)
        self._read += taken
        return masked.decode(errors="replace").encode()


def _whole_characters(data: bytes) -> int:
    """How many bytes of `data` do not belong to a character of UTF-8 that may yet be completed."""
    at = max(0, len(data) - 4)
    while at < len(data) and data[at] & 0xC0 == 0x80:  # a continuation
        at += 1
    return at + codecs.utf_8_decode(data[at:], "replace", False)[1]
