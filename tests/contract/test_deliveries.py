"""The outbox of webhooks: each delivery is there once, goes to one caller at a time, and is due until it was heard."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from broadway_api.domain import Delivery
from broadway_api.store.port import Store
from tests.contract.scenarios import NOW, later

PAUSES = [timedelta(seconds=30), timedelta(seconds=60)]


def delivery(number: int, seconds: float = 0) -> Delivery:
    return Delivery(id=f"d{number}", body=f'{{"n": {number}, "$x": "ü\\u0000"}}', created_at=later(seconds))


async def taken(store: Store, seconds: float) -> tuple[str, int] | None:
    found = await store.take_delivery(later(seconds), PAUSES)
    return None if found is None else (found.id, found.attempts)


async def test_a_delivery_comes_as_it_was_put_and_again_until_it_was_heard(store: Store, peer: Store) -> None:
    await store.put_delivery(delivery(1))
    found = await peer.take_delivery(NOW, PAUSES)
    assert found == Delivery(id="d1", body=delivery(1).body, attempts=1, created_at=NOW)
    assert await taken(store, 29.999) is None
    assert await taken(store, 30) == ("d1", 2)
    assert await taken(peer, 89.999) is None
    assert await taken(peer, 90) == ("d1", 3)
    assert await taken(store, 1_000_000) is None  # given up


async def test_one_that_was_heard_is_never_due_again_even_if_it_is_put_again(store: Store, peer: Store) -> None:
    await store.put_delivery(delivery(1))
    assert await taken(store, 0) == ("d1", 1)
    await peer.end_delivery("d1")
    await store.put_delivery(delivery(1, seconds=5))
    assert await taken(store, 1_000_000) is None


async def test_putting_it_again_does_not_begin_anew(store: Store) -> None:
    await store.put_delivery(delivery(1))
    await taken(store, 0)
    await store.put_delivery(delivery(1, seconds=1))
    assert await taken(store, 29) is None
    assert await taken(store, 30) == ("d1", 2)


async def test_those_that_are_due_come_in_order_each_to_one_caller(store: Store, peer: Store) -> None:
    for number in range(10):
        await store.put_delivery(delivery(number, seconds=9 - number))
    found = await asyncio.gather(*(taken(which, 4.5) for _ in range(5) for which in (store, peer)))
    assert sorted(one[0] for one in found if one) == ["d5", "d6", "d7", "d8", "d9"]
    assert await taken(store, 6) == ("d4", 1)


async def test_old_ones_are_forgotten_heard_or_not(store: Store) -> None:
    for number in range(3):
        await store.put_delivery(delivery(number, seconds=number))
    await store.end_delivery("d0")
    assert await store.forget_deliveries(later(2)) == 2
    assert await taken(store, 5) == ("d2", 1)
    assert await taken(store, 5) is None
