"""Calls that arrive together are served together: a few round trips for all, and each caller gets its own answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: Enough to share round trips among many, few enough that the first caller does not wait long for the last.
MAX_BATCH = 128

#: So many callers are worth two batches. In one they all wait for the server, which then waits for all of them.
DIVIDED_FROM = 4

#: Turns of the event loop in which a batch that was begun gets to the driver's socket, if it needs nothing read.
UNDER_WAY = 2

#: Tells what became of a batch, once it is written.
Answers = Callable[[], Awaitable[Sequence[Answer]]]


@dataclass(frozen=True, slots=True, eq=False)
class _Call(Generic[Item, Answer]):
    """What somebody asks for, and where they wait for the answers."""

    items: Sequence[Item]
    answers: asyncio.Future[list[Answer]]
    gathered: bool  # while another batch was being written


class Batches(Generic[Item, Answer]):
    """Gathers what is asked for while the batch before is being written, in the order in which it came.

    One batch is written at a time: two of one process would run after the same jobs.
    """

    def __init__(self, write: Callable[[Sequence[Item], bool], Awaitable[Answers[Answer]]], *, name: str) -> None:
        """`write` writes a batch and returns what tells the answers, in its order; each may raise for all of it.

        It is also told whether some of it gathered while another was being written: then calls come faster than
        batches. The next batch is written while one is answered.
        """
        self._write = write
        self._name = name
        self._waiting: deque[_Call[Item, Answer]] = deque()
        self._is_begun = self._is_writing = False
        self._being_answered = 0  # callers, who will soon be back
        self._serving: set[asyncio.Task[None]] = set()

    def ask(self, *items: Item) -> asyncio.Future[list[Answer]]:
        """What each of them is answered; they are in one batch.

        Who gives up before it begins has asked for nothing; later, it is served in vain.
        """
        answers: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        call: _Call[Item, Answer] = _Call(items, answers, self._is_writing)
        self._waiting.append(call)
        self._begin()
        return answers

    async def close(self) -> None:
        """Finish what was asked for."""
        while self._serving:
            await asyncio.gather(*self._serving)

    def _begin(self) -> None:
        if self._waiting and not self._is_begun:
            self._is_begun = True
            # It takes its batch when it first runs, and so all that is asked for in this turn of the event loop.
            task = asyncio.create_task(self._serve_batch(), name=self._name)
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve_batch(self) -> None:
        batch = self._take()
        try:
            answers = iter(await self._answers(batch))
        except BaseException as error:  # it is each caller's, and passed on; the next batch may fare better
            for call in batch:
                if not call.answers.done():
                    call.answers.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for call in batch:
                its = list(islice(answers, len(call.items)))
                if not call.answers.done():
                    call.answers.set_result(its)

    def _take(self) -> list[_Call[Item, Answer]]:
        """A batch of those who have not given up."""
        self._is_writing = True
        batch: list[_Call[Item, Answer]] = []
        callers = len(self._waiting) + self._being_answered
        at_most = (callers + 1) // 2 if callers >= DIVIDED_FROM else callers
        size = 0
        while self._waiting and size < MAX_BATCH and len(batch) < at_most:
            call = self._waiting.popleft()
            if not call.answers.done():
                batch.append(call)
                size += len(call.items)
        return batch

    async def _answers(self, batch: Sequence[_Call[Item, Answer]]) -> Sequence[Answer]:
        items = [item for call in batch for item in call.items]
        try:
            answers = await self._write(items, any(call.gathered for call in batch)) if items else _none
        finally:
            self._is_begun = self._is_writing = False
            self._being_answered = len(batch)
            self._begin()
        if self._is_begun:  # who is answered now takes the loop's time, while the server would have nothing to do
            for _ in range(UNDER_WAY):
                await asyncio.sleep(0)
        self._being_answered = 0
        return await answers()


async def _none() -> Sequence[Answer]:
    return []
