"""The outbox of webhooks: each delivery is there once, goes to one caller at a time, and is due until it was heard."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from broadway_api.domain import Delivery, DeliveryState
from broadway_api.store.port import Store
from tests.contract.scenarios import NOW, later

PAUSES = [timedelta(seconds=30), timedelta(seconds=60)]


def delivery(number: int, seconds: float = 0, run_id: str = "r") -> Delivery:
    body, made = f'{{"n": {number}, "$x": "ü\\u0000"}}', later(seconds)
    return Delivery(id=f"d{number}", run_id=run_id, body=body, created_at=made, due_at=made)


async def taken(store: Store, seconds: float) -> tuple[str, int] | None:
    found = await store.take_delivery(later(seconds), PAUSES)
    return None if found is None else (found.id, found.attempts)


async def test_a_delivery_comes_as_it_was_put_and_again_until_it_was_heard(store: Store, peer: Store) -> None:
    await store.put_delivery(delivery(1))
    found = await peer.take_delivery(NOW, PAUSES)
    assert found == replace(delivery(1), attempts=1, due_at=later(30))
    assert await taken(store, 29.999) is None
    assert await taken(store, 30) == ("d1", 2)
    assert await taken(peer, 89.999) is None
    assert await taken(peer, 90) == ("d1", 3)
    assert await taken(store, 1_000_000) is None  # given up


async def test_one_that_was_heard_is_never_due_again_even_if_it_is_put_again(store: Store, peer: Store) -> None:
    await store.put_delivery(delivery(1))
    assert await taken(store, 0) == ("d1", 1)
    await peer.end_delivery("d1", later(1))
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
    await store.end_delivery("d0", later(2))
    assert await store.forget_deliveries(later(2)) == 2
    assert await taken(store, 5) == ("d2", 1)
    assert await taken(store, 5) is None


async def test_a_runs_deliveries_say_what_came_of_them(store: Store, peer: Store) -> None:
    for number, run_id in enumerate(("r1", "r2", "r1", "r1")):
        await store.put_delivery(delivery(number, seconds=number, run_id=run_id))
    assert await taken(store, 0) == ("d0", 1)
    await store.note_delivery_fault("d0", "status 503")
    assert await taken(store, 2) == ("d1", 1)
    assert await taken(store, 2) == ("d2", 1)
    await store.end_delivery("d2", later(2.5))
    for seconds in (30, 90):
        while found := await taken(store, seconds):
            assert found[0] != "d2"
    await store.note_delivery_fault("d0", "status 404")
    first, second, third = await peer.run_deliveries("r1")
    assert (first.id, first.state, first.attempts, first.fault) == ("d0", DeliveryState.GIVEN_UP, 3, "status 404")
    assert (second.id, second.state, second.attempts) == ("d2", DeliveryState.HEARD, 1)
    assert (second.heard_at, second.due_at, second.fault) == (later(2.5), None, None)
    assert (third.id, third.state, third.due_at) == ("d3", DeliveryState.PENDING, later(150))
    assert await peer.run_deliveries("r3") == []
