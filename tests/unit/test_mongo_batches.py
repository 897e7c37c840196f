"""What is asked for together is served together, and everybody gets what is their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from broadway_api.store.mongo_batches import MAX_BATCH, Batches


class Kitchen:
    """Serves numbers twice as large as those that are asked for, once it is told to."""

    def __init__(self, *, at_once: int = 1) -> None:
        self.batches: Batches[int, int] = Batches(self._serve, name="kitchen", at_once=at_once)
        self.served: list[list[int]] = []
        self.gathered: list[bool] = []
        self.open = asyncio.Event()

    async def _serve(self, numbers: Sequence[int], gathered: bool) -> list[int]:
        self.served.append(list(numbers))
        self.gathered.append(gathered)
        await self.open.wait()
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


async def turns() -> None:
    """Lets everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_in_one_turn_or_while_others_are_served_is_one_batch() -> None:
    kitchen = Kitchen()
    first = [asyncio.create_task(kitchen.batches.ask(number)) for number in (1, 2, 3)]
    await turns()
    second = [asyncio.create_task(kitchen.batches.ask(number)) for number in (4, 5)]
    await turns()
    assert kitchen.served == [[1, 2, 3]]
    kitchen.open.set()
    assert await asyncio.gather(*first, *second) == [2, 4, 6, 8, 10]
    assert kitchen.served == [[1, 2, 3], [4, 5]]
    assert await kitchen.batches.ask_all([6, 7]) == [12, 14]
    assert kitchen.gathered == [False, True, False]


async def test_so_many_batches_are_served_at_once_and_none_is_too_large() -> None:
    kitchen = Kitchen(at_once=2)
    numbers = range(100, 103 + 2 * MAX_BATCH)
    asked = [asyncio.create_task(kitchen.batches.ask(number)) for number in numbers]
    await turns()
    assert [len(batch) for batch in kitchen.served] == [MAX_BATCH, MAX_BATCH]
    kitchen.open.set()
    assert await asyncio.gather(*asked) == [2 * number for number in numbers]
    assert [len(batch) for batch in kitchen.served] == [MAX_BATCH, MAX_BATCH, 3]


async def test_who_gives_up_before_its_batch_begins_has_asked_for_nothing() -> None:
    kitchen = Kitchen()
    being_served, waiting = (asyncio.create_task(kitchen.batches.ask(number)) for number in (1, 3))
    await turns()
    late = [asyncio.create_task(kitchen.batches.ask(number)) for number in (4, 5)]
    await turns()
    late[0].cancel()
    being_served.cancel()
    await turns()
    kitchen.open.set()
    assert [await waiting, await late[1]] == [6, 10]
    assert kitchen.served == [[1, 3], [5]]


async def test_a_batch_that_fails_fails_for_all_of_it_and_for_nobody_else() -> None:
    kitchen = Kitchen()
    unlucky = [asyncio.create_task(kitchen.batches.ask(number)) for number in (12, 13)]
    await turns()
    lucky = asyncio.create_task(kitchen.batches.ask(14))
    kitchen.open.set()
    for task in unlucky:
        with pytest.raises(ValueError, match="thirteen"):
            await task
    assert await lucky == 28


async def test_closing_finishes_what_was_asked_for() -> None:
    kitchen = Kitchen()
    asked = asyncio.create_task(kitchen.batches.ask(1))
    await turns()
    closing = asyncio.create_task(kitchen.batches.close())
    await turns()
    assert not closing.done()
    kitchen.open.set()
    await closing
    assert await asked == 2
