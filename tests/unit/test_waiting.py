"""Following the queue: one look a second for all who follow, and none for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from broadway_api.errors import StoreUnavailable
from broadway_api.policy import Policy
from broadway_api.waiting import Waiting
from tests.contract.scenarios import NOW


class Queue:
    """A store whose positions are a script of looks; time passes only while somebody sleeps."""

    def __init__(self, *looks: Mapping[str, int] | Exception) -> None:
        self.looks = list(looks)
        self.asked: list[set[str]] = []
        self.time = 0.0
        self.looked_at: list[float] = []

    async def workers(self) -> list[Any]:
        return []

    async def queued_requirements(self, limit: int) -> Mapping[str, int]:
        return {"": 1}

    async def queue_positions(self, job_ids: Sequence[str], *, stranded: Collection[str] = ()) -> Mapping[str, int]:
        self.asked.append(set(job_ids))
        self.looked_at.append(self.time)
        await asyncio.sleep(0)
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        for _ in range(5):  # whoever else is ready comes first
            await asyncio.sleep(0)

    def waiting(self) -> Waiting:
        store: Any = self
        return Waiting(store, Policy(), now=lambda: NOW, monotonic=lambda: self.time, sleep=self.sleep)


async def test_a_follower_hears_of_changes_alone_until_the_job_is_handed_out() -> None:
    queue = Queue({"a": 7}, {"a": 7}, {"a": 3}, {"a": 0}, {})
    assert [position async for position in queue.waiting().follow("a")] == [7, 3, 0]
    assert queue.looked_at == [0, 1, 2, 3, 4]


async def test_all_followers_share_one_look() -> None:
    queue = Queue({"a": 1, "b": 2}, {"a": 0, "b": 1}, {"b": 0}, {})
    waiting = queue.waiting()

    async def heard(job_id: str) -> list[int]:
        return [position async for position in waiting.follow(job_id)]

    followers = [heard(job_id) for job_id in ["a", "b"] * 50]
    async with asyncio.timeout(20):
        told = await asyncio.gather(*followers)

    assert told == [[1, 0], [2, 1, 0]] * 50
    assert queue.asked == [{"a", "b"}] * 3 + [{"b"}]


async def test_a_follower_that_leaves_takes_nobody_with_it() -> None:
    queue = Queue({"a": 5, "b": 6}, {"b": 1}, {})
    waiting = queue.waiting()
    leaving, staying = waiting.follow("a"), waiting.follow("b")
    first = await asyncio.gather(anext(leaving), anext(staying))
    await leaving.aclose()
    assert [*first, *[position async for position in staying]] == [5, 6, 1]
    assert queue.asked[1:] == [{"b"}, {"b"}]


async def test_a_store_that_is_away_is_told_to_every_follower() -> None:
    waiting = Queue(StoreUnavailable("away")).waiting()
    followers = [waiting.follow("a"), waiting.follow("b")]
    outcomes = await asyncio.gather(*map(anext, followers), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 2


@pytest.mark.parametrize("times", [1, 30])
async def test_the_fleet_is_counted_once_a_second(times: int) -> None:
    queue = Queue(*[{"a": 1}] * (2 * times))
    waiting = queue.waiting()
    counted = 0

    async def workers() -> list[Any]:
        nonlocal counted
        counted += 1
        return []

    queue.workers = workers  # type: ignore[method-assign]
    for _ in range(times):
        assert await waiting.shortage("gpu") == "no worker is connected"
    queue.time += 1
    await waiting.shortage("gpu")
    assert counted == 2
