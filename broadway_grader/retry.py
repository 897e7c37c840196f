"""The one retry function: exponential back-off with full jitter, over the typed failures of `errors`."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broadway_grader.errors import RetryableError

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Sleep = Callable[[float], Awaitable[object]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait between tries. All in seconds; `attempts` None: for as long as it takes."""

    first: float = 0.5
    longest: float = 30.0
    attempts: int | None = None
    sleep: Sleep = asyncio.sleep
    chance: Callable[[], float] = random.random

    def delay(self, failures: int, at_least: float = 0.0) -> float:
        """Seconds to wait after the `failures`-th failure in a row (1, 2, …).

        Uniform between 0 and min(longest, first * 2**(failures - 1)): 0.5, 1, 2, 4 … 30. Full jitter, because a fleet
        that lost its API at one moment would otherwise come back at one moment. A `Retry-After` is waited out first.
        """
        # Beyond 2**32 the product is far over any `longest`, and would overflow after a weekend of failures.
        ceiling = min(self.longest, self.first * 2.0 ** min(failures - 1, 32))
        return at_least + ceiling * self.chance()


async def retry(call: Callable[[], Awaitable[Result]], what: str, *ids: object, backoff: Backoff) -> Result:
    """Call until it succeeds; RetryableError waits and tries again, anything else is the caller's.

    Raises the last RetryableError once `backoff.attempts` tries have failed. `what` and `ids` name the call in the log,
    as a message and its arguments do: a line of JSON has the ids that stand behind their words as fields.
    """
    failures = 0
    while True:
        try:
            result = await call()
        except RetryableError as error:
            failures += 1
            if backoff.attempts is not None and failures >= backoff.attempts:
                raise
            delay = backoff.delay(failures, error.retry_after)
            told = f"{what} failed (%d in a row), again in %.1f s: %s"
            log.warning(told, *ids, failures, delay, error)
            await backoff.sleep(delay)
        else:
            if failures:
                told = f"{what} succeeded after %d failures"
                log.info(told, *ids, failures)
            return result
