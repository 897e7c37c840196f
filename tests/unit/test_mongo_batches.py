"""What is asked for together is served together, and everybody gets what is their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from broadway_api.store.mongo_batches import DIVIDED_FROM, MAX_BATCH, Batches


class Kitchen:
    """Serves numbers twice as large as those that are asked for, once it is told to."""

    def __init__(self) -> None:
        self.batches: Batches[int, int] = Batches(self._write, name="kitchen")
        self.written: list[list[int]] = []
        self.answered: list[int] = []  # how many batches had been begun when each was answered
        self.gathered: list[bool] = []
        self.open = asyncio.Event()

    async def _write(self, numbers: Sequence[int], gathered: bool) -> Callable[[], Awaitable[list[int]]]:
        self.written.append(list(numbers))
        self.gathered.append(gathered)
        await self.open.wait()

        async def answers() -> list[int]:
            self.answered.append(len(self.written))
            if 13 in numbers:
                raise ValueError("thirteen")
            return [2 * number for number in numbers]

        if 14 in numbers:
            raise ValueError("fourteen")
        return answers


async def turns() -> None:
    """Lets everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_in_one_turn_or_while_others_are_written_is_one_batch() -> None:
    kitchen = Kitchen()
    first = [kitchen.batches.ask(number) for number in (1, 2, 3)]
    await turns()
    second = [kitchen.batches.ask(4), kitchen.batches.ask(5, 6)]
    await turns()
    assert kitchen.written == [[1, 2, 3]]
    kitchen.open.set()
    assert await asyncio.gather(*first, *second) == [[2], [4], [6], [8], [10, 12]]
    assert kitchen.written == [[1, 2, 3], [4, 5, 6]]
    assert await kitchen.batches.ask(6, 7) == [12, 14]
    assert kitchen.gathered == [False, True, False]


async def test_the_next_batch_is_on_its_way_before_one_is_answered() -> None:
    kitchen = Kitchen()
    asked = [kitchen.batches.ask(1)]
    await turns()
    asked.append(kitchen.batches.ask(2))
    kitchen.open.set()
    await asyncio.gather(*asked)
    assert kitchen.answered == [2, 2]


async def test_many_callers_are_divided_so_that_one_half_is_written_while_the_other_is_answered() -> None:
    kitchen = Kitchen()
    asked = [kitchen.batches.ask(number, -number) for number in range(100, 100 + DIVIDED_FROM)]
    kitchen.open.set()
    await asyncio.gather(*asked)
    assert [len(batch) for batch in kitchen.written] == [DIVIDED_FROM, DIVIDED_FROM]


async def test_no_batch_is_too_large() -> None:
    kitchen = Kitchen()
    numbers = range(100, 100 + 5 * MAX_BATCH)
    kitchen.open.set()
    asked = [kitchen.batches.ask(number) for number in numbers]
    assert await asyncio.gather(*asked) == [[2 * number] for number in numbers]
    assert max(len(batch) for batch in kitchen.written) == MAX_BATCH


async def test_who_gives_up_before_its_batch_begins_has_asked_for_nothing() -> None:
    kitchen = Kitchen()
    being_written, waiting = kitchen.batches.ask(1), kitchen.batches.ask(3)
    await turns()
    late = [kitchen.batches.ask(number) for number in (4, 5)]
    await turns()
    late[0].cancel()
    being_written.cancel()
    await turns()
    kitchen.open.set()
    assert [await waiting, await late[1]] == [[6], [10]]
    assert kitchen.written == [[1, 3], [5]]
    gone = kitchen.batches.ask(7)
    gone.cancel()
    await turns()
    assert await kitchen.batches.ask(8) == [16]
    assert kitchen.written == [[1, 3], [5], [8]]


@pytest.mark.parametrize("wrong", [13, 14], ids=["as it is answered", "as it is written"])
async def test_a_batch_that_fails_fails_for_all_of_it_and_for_nobody_else(wrong: int) -> None:
    kitchen = Kitchen()
    unlucky = [kitchen.batches.ask(number) for number in (12, wrong)]
    await turns()
    lucky = kitchen.batches.ask(15)
    kitchen.open.set()
    for asked in unlucky:
        with pytest.raises(ValueError, match="teen"):
            await asked
    assert await lucky == [30]


async def test_closing_finishes_what_was_asked_for() -> None:
    kitchen = Kitchen()
    asked = kitchen.batches.ask(1)
    await turns()
    closing = asyncio.create_task(kitchen.batches.close())
    await turns()
    assert not closing.done()
    kitchen.open.set()
    await closing
    assert await asked == [2]
