"""Work on MongoDB that is begun before anybody needs it, so that nobody has to wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable

from pymongo.errors import PyMongoError

logger = logging.getLogger(__name__)


class Background:
    """Tasks, one of each kind at a time."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def start(self, kind: Hashable, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Begin some work, unless work of that kind is under way."""
        if kind not in self._tasks:
            task = self._tasks[kind] = asyncio.create_task(self._done(work()), name=f"ahead: {kind}")
            task.add_done_callback(lambda _: self._tasks.pop(kind))

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _done(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except PyMongoError as error:  # whoever needs it does it himself, and is told what is wrong
            logger.debug("could not be done ahead: %s", error)
