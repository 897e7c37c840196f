"""The order to end a stage before it ends by itself: given by whoever notices first, carried out by its runtime."""

from __future__ import annotations

import asyncio
from typing import Any

from broadway_grader.domain import Reason


class Ending:
    """At most one order to end one stage; the first counts, and its reason becomes the stage's."""

    def __init__(self) -> None:
        self._given = asyncio.Event()
        self.reason: Reason | None = None
        self.message: str | None = None

    @property
    def ordered(self) -> bool:
        """Whether the stage is to be ended."""
        return self._given.is_set()

    def order(self, reason: Reason, message: str) -> None:
        """End the stage. From the event loop's thread; a second order changes nothing."""
        if not self.ordered:
            self.reason, self.message = reason, message
            self._given.set()

    async def first_of(self, work: asyncio.Future[Any], seconds: float | None = None) -> None:
        """Return when `work` is done, the order is given or that many `seconds` are over, whichever comes first."""
        ordered = asyncio.ensure_future(self._given.wait())
        try:
            await asyncio.wait({work, ordered}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ordered.cancel()
