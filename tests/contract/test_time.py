"""The store's clock, by which all processes that share it judge leases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from broadway_api.store.port import Store


async def test_the_time_is_aware_and_close_to_that_of_this_machine(store: Store) -> None:
    assert abs(await store.time() - datetime.now(UTC)) < timedelta(seconds=5)
