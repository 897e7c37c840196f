"""Keeping the beginning of what a stage prints, and no more, while it is being printed."""

from __future__ import annotations

from broadway_grader.domain import Output


class BoundedOutput:
    """The first `limit` bytes of one stream."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._truncated = False

    @property
    def truncated(self) -> bool:
        """Whether there was more than is kept."""
        return self._truncated

    def add(self, chunk: bytes) -> bool:
        """Take the next bytes of the stream; whether there is a use for more of them."""
        room = self._limit - len(self._kept)
        self._kept += chunk[:room]
        self._truncated = self._truncated or len(chunk) > room
        return not self._truncated

    def result(self) -> Output:
        """What was kept, as text: whatever is no UTF-8 becomes a replacement character."""
        return Output(text=self._kept.decode("utf-8", errors="replace"), truncated=self._truncated)
