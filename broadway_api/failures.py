"""How many failed authentications an address may have, in bounded memory and constant time.

Only failures ask it. Who shows a good token is never kept out: whoever guesses behind the NAT of a fleet must not lock
out the fleet.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address

logger = logging.getLogger(__name__)

#: Addresses that are watched; beyond that the one whose last failure is the longest ago is forgotten.
CAPACITY = 4_096

_MINUTE = 60.0
_ROUNDING = 1e-6


class Failures:
    """A bucket for each address, which takes a minute's worth of failures at once and empties steadily."""

    def __init__(
        self, per_minute: int, *, capacity: int = CAPACITY, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = _MINUTE / per_minute
        self._capacity = capacity
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, bool]] = OrderedDict()  # when it will be empty; has overflown

    def __len__(self) -> int:
        return len(self._buckets)

    def note(self, address: str) -> float | None:
        """Count a failure that is within the limit, and return None; else the seconds until one would be."""
        key, now = _key(address), self._monotonic()
        empty_at, overflown = self._buckets.pop(key, (now, False))
        if empty_at <= now:
            empty_at, overflown = now, False
        wait = empty_at + self._interval - now - _MINUTE
        refused = wait > _ROUNDING
        if refused and not overflown:  # said once, until it has been empty again
            logger.warning("too many failed authentications from %s", key)
        self._buckets[key] = (empty_at, True) if refused else (empty_at + self._interval, overflown)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        return wait if refused else None


def _key(address: str) -> str:
    """The address, or the network of an IPv6 address: a customer has at least 2⁶⁴ of those."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    return f"{ip_address(int(parsed) >> 64 << 64)}/64"
