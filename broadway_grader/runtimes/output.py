"""Keeping the beginning of what a stage prints while it is being printed, and counting the rest."""

from __future__ import annotations

import asyncio

from broadway_grader.domain import Output, Reason
from broadway_grader.ending import Ending


class BoundedOutput:
    """The first `limit` bytes of one stream. Filled by one thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.dropped_bytes = 0  # so far

    def add(self, chunk: bytes) -> bool:
        """Take the next bytes of the stream; whether all has been kept so far."""
        room = self._limit - len(self._kept)
        self._kept += chunk[:room]
        self.drop(max(0, len(chunk) - room))
        return self.dropped_bytes == 0

    def drop(self, count: int) -> None:
        """Count the next bytes of the stream without having them."""
        if count and not self.dropped_bytes:
            self._exceeded()
        self.dropped_bytes += count

    @property
    def size(self) -> int:
        """Bytes that were kept so far."""
        return len(self._kept)

    def read(self, start: int, size: int) -> bytes:
        """Some of what was kept so far; from any thread."""
        return bytes(self._kept[start : start + size])

    def result(self) -> Output:
        """What was kept, as text: whatever is no UTF-8 becomes a replacement character."""
        text = self._kept.decode("utf-8", errors="replace")
        return Output(text=text, truncated=self.dropped_bytes > 0, dropped_bytes=self.dropped_bytes)

    def _exceeded(self) -> None:
        """Called once, by the thread that fills, when the first byte is dropped."""


class StoppingOutput(BoundedOutput):
    """One that ends its stage when there is more than it keeps. To be made in the event loop's thread."""

    def __init__(self, limit: int, ending: Ending) -> None:
        super().__init__(limit)
        self._ending = ending
        self._loop = asyncio.get_running_loop()

    def _exceeded(self) -> None:
        message = f"it printed more than {self._limit} bytes"
        self._loop.call_soon_threadsafe(self._ending.order, Reason.OUTPUT_LIMIT, message)


def outputs_of_stage(limit: int, ending: Ending, *, stop: bool) -> tuple[BoundedOutput, BoundedOutput]:
    """Room for stdout and for stderr. With `stop`, more than fits ends the stage."""
    if stop:
        return StoppingOutput(limit, ending), StoppingOutput(limit, ending)
    return BoundedOutput(limit), BoundedOutput(limit)
