"""What the measuring asks of each queue, whichever it is. It runs in that queue's own virtual environment."""

from __future__ import annotations

import os
import time
from typing import Protocol

#: URLs of what jobs are handed in to, and of where their results are stored.
BROKER = os.environ.get("PEER_BROKER", "")
RESULTS = os.environ.get("PEER_RESULTS", "")

#: Whether handing in a job waits for the broker's word that it has it, where that is not so anyway.
CONFIRM = os.environ.get("PEER_CONFIRM") == "1"


class Peer(Protocol):
    """A queue, as seen by whoever hands in jobs."""

    async def open(self) -> None:
        """Connect, if that is not done by itself."""
        ...

    async def enqueue(self, jobs: int) -> None:
        """Hand in that many no-op jobs, in the quickest way that the documentation shows."""
        ...

    async def ended(self) -> int:
        """How many jobs have a stored result. It is asked for often, so it costs next to nothing."""
        ...

    async def latency(self) -> float:
        """Seconds from handing in one job until it runs in a worker that had nothing to do."""
        ...


def no_op() -> float:
    """The job. Its result is when it ran, by the one monotonic clock of the machine."""
    return time.monotonic()
