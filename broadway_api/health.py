"""Whether the store answers and writes, asked rarely enough that everybody may ask."""

from __future__ import annotations

import asyncio

from broadway_api.errors import StoreUnavailable
from broadway_api.store.port import Store

#: Seconds that an answer is good for. Each costs the store a durable write, and whoever asks shows no token.
GOOD_FOR = 1.0


class Health:
    """The store's last answer; one question at a time, on which all wait who ask meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asking = asyncio.Lock()
        self._answered: float | None = None  # loop time
        self._problem: str | None = None

    async def check(self) -> None:
        """Raises StoreUnavailable."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if self._answered is None or loop.time() - self._answered >= GOOD_FOR:
                try:
                    await self._store.ping()
                    self._problem = None
                except StoreUnavailable as error:
                    self._problem = error.problem
                self._answered = loop.time()
        if self._problem is not None:
            raise StoreUnavailable(self._problem)
