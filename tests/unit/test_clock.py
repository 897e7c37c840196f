"""The store's clock, counted on by a monotonic one: what setting a machine's clock does, and what it does not."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from broadway_api.clock import JUMP, StoreClock
from broadway_api.errors import StoreUnavailable

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


class Clocks:
    """The store's clock and this process's monotonic one; time passes when a test says so."""

    def __init__(self) -> None:
        self.store = NOON
        self.monotonic = 1_000.0
        self.asking = 0.0  # seconds until the question arrives
        self.answering = 0.0  # seconds until the answer does
        self.away = False
        self.clock = StoreClock(self.read, monotonic=lambda: self.monotonic)

    def pass_time(self, seconds: float) -> None:
        self.store += timedelta(seconds=seconds)
        self.monotonic += seconds

    async def read(self) -> datetime:
        if self.away:
            raise StoreUnavailable("away")
        self.pass_time(self.asking)
        answer = self.store
        self.pass_time(self.answering)
        return answer


@pytest.fixture
async def clocks() -> Clocks:
    """Clocks that agree."""
    made = Clocks()
    await made.clock.synchronize()
    return made


def test_before_it_was_read_it_is_this_machines() -> None:
    assert abs(Clocks().clock.now() - datetime.now(UTC)) < timedelta(seconds=60)


async def test_it_shows_the_stores_time_in_whole_milliseconds(clocks: Clocks) -> None:
    assert clocks.clock.now() == NOON
    clocks.pass_time(0.0019)
    assert clocks.clock.now() == NOON + timedelta(milliseconds=1)


async def test_between_two_readings_it_counts_on_whatever_is_set(clocks: Clocks) -> None:
    clocks.store += timedelta(hours=1)
    clocks.pass_time(5)
    assert clocks.clock.now() == NOON + timedelta(seconds=5)


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_jump_of_the_store_is_followed_and_told(
    clocks: Clocks, hours: int, caplog: pytest.LogCaptureFixture
) -> None:
    clocks.store += timedelta(hours=hours)

    with caplog.at_level(logging.WARNING):
        assert await clocks.clock.synchronize()

    assert clocks.clock.now() == NOON + timedelta(hours=hours)
    assert caplog.messages == [f"the store's clock jumped by {hours * 3_600:.1f} s"]
    assert not await clocks.clock.synchronize()  # once


@pytest.mark.parametrize("seconds", [0.3, -0.3, 2, -2])
async def test_drift_is_followed_without_a_word(
    clocks: Clocks, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert timedelta(seconds=abs(seconds)) <= JUMP
    clocks.store += timedelta(seconds=seconds)
    assert not await clocks.clock.synchronize()
    assert clocks.clock.now() == NOON + timedelta(seconds=seconds)
    assert caplog.messages == []


@pytest.mark.parametrize(("asking", "answering"), [(20, 0), (0, 20), (10, 10), (0, 3_600)])
async def test_a_slow_answer_moves_nothing(clocks: Clocks, asking: float, answering: float) -> None:
    """Least of all by half of the time that it took, nor does it look like a jump."""
    clocks.asking, clocks.answering = asking, answering
    assert not await clocks.clock.synchronize()
    assert clocks.clock.now() == clocks.store


async def test_the_least_jump_is_more_than_any_drift(clocks: Clocks) -> None:
    clocks.store += JUMP + timedelta(milliseconds=1)
    assert await clocks.clock.synchronize()


async def test_drift_behind_a_slow_answer_is_no_jump(clocks: Clocks) -> None:
    clocks.asking = clocks.answering = 2.0
    clocks.store += timedelta(seconds=3)
    assert not await clocks.clock.synchronize()


async def test_a_jump_behind_a_slow_answer_is_noticed(clocks: Clocks) -> None:
    clocks.asking = 10
    clocks.store += timedelta(hours=1)
    assert await clocks.clock.synchronize()
    assert abs(clocks.clock.now() - clocks.store) <= timedelta(seconds=5)
    clocks.asking = 0
    await clocks.clock.synchronize()
    assert clocks.clock.now() == clocks.store


async def test_a_store_that_is_away_stops_no_clock(clocks: Clocks) -> None:
    clocks.away = True
    clocks.pass_time(30)
    with pytest.raises(StoreUnavailable):
        await clocks.clock.synchronize()
    assert clocks.clock.now() == NOON + timedelta(seconds=30)
