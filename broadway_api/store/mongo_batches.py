"""Calls that arrive together are served together: a few round trips for all, and each caller gets its own answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: Enough to share round trips among many, few enough that the first caller does not wait long for the last.
MAX_BATCH = 128


class Batches(Generic[Item, Answer]):
    """Gathers what is asked for while the batches before are being served, in the order in which it came."""

    def __init__(
        self, serve: Callable[[Sequence[Item], bool], Awaitable[Sequence[Answer]]], *, name: str, at_once: int
    ) -> None:
        """`serve` answers a batch, in its order, or raises for all of it; so many batches are served `at_once`.

        It is also told whether the batch gathered while others were being served: then calls come faster than batches.
        """
        self._serve = serve
        self._name = name
        self._at_once = at_once
        self._waiting: deque[tuple[Item, asyncio.Future[Answer], bool]] = deque()  # whether others were being served
        self._serving: set[asyncio.Task[None]] = set()
        self._begun = 0

    async def ask(self, item: Item) -> Answer:
        """Its answer. Who gives up before its batch begins has asked for nothing; later, it is served in vain."""
        return await self._enqueue(item)

    async def ask_all(self, items: Sequence[Item]) -> list[Answer]:
        """What each of them is answered; they mostly are in one batch."""
        return await asyncio.gather(*[self._enqueue(item) for item in items])

    async def close(self) -> None:
        """Finish what was asked for."""
        while self._serving:
            await asyncio.gather(*self._serving)

    def _enqueue(self, item: Item) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future, self._begun > 0))
        self._begin()
        return future

    def _begin(self) -> None:
        if self._waiting and len(self._serving) < self._at_once:
            # It takes its batch when it first runs, and so all that is asked for in this turn of the event loop.
            task = asyncio.create_task(self._serve_batch(), name=self._name)
            self._serving.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        self._begin()

    async def _serve_batch(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        gathered = False
        while self._waiting and len(batch) < MAX_BATCH:
            item, future, waited = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
                gathered |= waited
        if not batch:
            return
        self._begun += 1
        try:
            answers = await self._serve([item for item, _ in batch], gathered)
        except BaseException as error:  # it is each caller's, and passed on; the next batch may fare better
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        finally:
            self._begun -= 1
