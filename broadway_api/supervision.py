"""Background tasks: named, supervised, restarted after passing faults; any other fault stops the process loudly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from broadway_api.errors import StoreUnavailable

logger = logging.getLogger(__name__)

#: The longest pause after repeated faults of the store, in seconds.
MAX_PAUSE = 30.0

#: Seconds after which a task that was told to end, and has not, is told again.
INSIST_EVERY = 0.1


async def supervise(
    name: str,
    run: Callable[[], Awaitable[None]],
    *,
    pause: float = 1.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run a task for ever: begin again after StoreUnavailable, with growing pauses; let anything else out.

    The pause doubles from `pause` to MAX_PAUSE seconds; a run that lasted longer than that begins anew.
    """
    loop = asyncio.get_running_loop()
    faults = 0
    while True:
        began = loop.time()
        try:
            await run()
        except StoreUnavailable as error:
            faults = 1 if loop.time() - began > MAX_PAUSE else faults + 1
            delay = min(pause * 2 ** min(faults - 1, 16), MAX_PAUSE)
            logger.warning("%s: %s; again in %.0f s", name, error, delay)
            await sleep(delay)
        else:
            raise RuntimeError(f"the task {name} ended, which it never should")


async def end_all(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until the last of them has ended, however it ends.

    Once is not enough: before Python 3.12 `asyncio.wait_for`, on which the MongoDB driver stands, loses a cancellation
    that comes at the very moment at which what it waits for is done, and a task that goes on for ever goes on.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=INSIST_EVERY)
