"""The clock by which leases are judged: the store's, which all API processes share.

An API process reads it now and then, and in between counts on by its own monotonic clock, so that nobody who sets the
clock of one machine, a worker's or an API's, can end a lease or make one last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

logger = logging.getLogger(__name__)

#: A difference between two readings that no drift and no slow network explains: the store's clock was set, or another
#: server took over whose clock shows something else.
JUMP = timedelta(seconds=2)


def utc_now() -> datetime:
    """This machine's time in whole milliseconds, as every store keeps it."""
    return _whole_milliseconds(datetime.now(UTC))


class StoreClock:
    """The store's time. Until it was read for the first time, this machine's."""

    def __init__(
        self,
        read: Callable[[], Awaitable[datetime]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` asks the store, see `Store.time`."""
        self._read = read
        self._monotonic = monotonic
        self._began = datetime.now(UTC) - timedelta(seconds=monotonic())

    def now(self) -> datetime:
        """The time in whole milliseconds."""
        return _whole_milliseconds(self._began + timedelta(seconds=self._monotonic()))

    async def synchronize(self) -> bool:
        """Read the store's clock; whether it had jumped. Raises StoreUnavailable."""
        asked = self._monotonic()
        read = await self._read()
        arrived = self._monotonic()
        # The answer was made at some time between question and arrival: take the middle, which may be half of that off.
        began = read - timedelta(seconds=(asked + arrived) / 2)
        moved, uncertain = abs(began - self._began), timedelta(seconds=(arrived - asked) / 2)
        if moved <= uncertain:
            return False  # a slow answer that agrees with what was counted tells nothing better
        jumped = moved > JUMP + uncertain
        if jumped:
            logger.warning("the store's clock jumped by %.1f s", (began - self._began).total_seconds())
        self._began = began
        return jumped


def _whole_milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
