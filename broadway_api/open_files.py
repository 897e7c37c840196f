"""How many files this process may have open. Each connection is one, and so are the store's and the logs'."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

#: Enough for 30,000 graders; a limit that is no limit would have some kernels make tables of a gigabyte.
ENOUGH = 65_536

#: Files that connections leave to the rest of the process, or a quarter of all if those are few.
RESERVED = 100

#: Seconds between two lines of the log that say the same.
QUIET = 60.0


def raise_limit() -> None:
    """Let this process open as many files as it is allowed to ask for: shells and many services begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class OpenFiles:
    """Says whether there is room for one more connection, and in the log if there is not."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told: float | None = None

    def has_room(self, number: int) -> bool:
        """Whether the file of this number may stay open. The kernel gives the lowest that is free."""
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most == resource.RLIM_INFINITY or number < most - min(RESERVED, most // 4):
            return True
        if self._told is None or self._monotonic() - self._told >= QUIET:
            self._told = self._monotonic()
            logger.error("connections are closed unheard: only %d files may be open (ulimit -n, LimitNOFILE)", most)
        return False
