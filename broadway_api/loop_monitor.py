"""How late the event loop is: the one number that tells whether something blocks it."""

from __future__ import annotations

import asyncio
from collections import deque

#: Seconds between two looks, and how many looks are remembered.
INTERVAL = 0.25
REMEMBERED = 40


class LoopMonitor:
    """Sleeps for a fixed time and notes how much longer that took."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def lag(self) -> float:
        """The worst of the last ten seconds, in seconds."""
        return max(self._lags, default=0.0)

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL
            await asyncio.sleep(INTERVAL)
            self._lags.append(max(loop.time() - due, 0.0))
