"""Wake-ups reach those who wait longest, and a lost one costs a look into the store, not a job."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack, suppress

import pytest

from broadway_api.errors import StoreUnavailable
from broadway_api.events import WakeUps, listen_for_jobs, watch_queue


def test_as_many_wake_as_there_are_jobs_the_longest_waiting_first() -> None:
    wake_ups = WakeUps()
    with ExitStack() as stack:
        places = [stack.enter_context(wake_ups.place({})) for _ in range(4)]
        wake_ups.jobs_queued({"": 2})
        assert [place.is_set() for place in places] == [True, True, False, False]
        wake_ups.jobs_queued({"": 1})
        assert [place.is_set() for place in places] == [True, True, True, False]
        wake_ups.jobs_queued({"": 100})
        assert all(place.is_set() for place in places)
        assert len(wake_ups) == 0


def test_only_those_wake_who_can_run_what_is_queued() -> None:
    wake_ups = WakeUps()
    with wake_ups.place({}) as plain, wake_ups.place({"gpu": ""}) as first, wake_ups.place({"gpu": "a100"}) as second:
        wake_ups.jobs_queued({"gpu": 1, "tpu": 5})
        assert [place.is_set() for place in (plain, first, second)] == [False, True, False]
        wake_ups.jobs_queued({"": 1, "gpu": 1})
        assert [place.is_set() for place in (plain, first, second)] == [True, True, True]


def test_a_wake_up_goes_on_to_one_who_can_run_that_job() -> None:
    wake_ups = WakeUps()
    with ExitStack() as stack:
        leaving = stack.enter_context(ExitStack())
        leaving.enter_context(wake_ups.place({"gpu": ""}))
        plain, gpu = stack.enter_context(wake_ups.place({})), stack.enter_context(wake_ups.place({"gpu": ""}))
        wake_ups.jobs_queued({"gpu": 1})
        with pytest.raises(asyncio.CancelledError), leaving:
            raise asyncio.CancelledError
        assert (plain.is_set(), gpu.is_set()) == (False, True)


def test_who_has_left_is_not_woken_in_place_of_another() -> None:
    wake_ups = WakeUps()
    with ExitStack() as stack:
        with wake_ups.place({}) as gone:
            stays = stack.enter_context(wake_ups.place({}))
        wake_ups.jobs_queued({"": 1})
        assert stays.is_set()
        assert not gone.is_set()


def test_a_wake_up_between_taking_a_place_and_waiting_is_kept() -> None:
    wake_ups = WakeUps()
    with wake_ups.place({}) as place:
        wake_ups.jobs_queued({"": 1})
        assert place.is_set()


def test_nobody_is_woken_for_no_job() -> None:
    wake_ups = WakeUps()
    with wake_ups.place({}) as place:
        wake_ups.jobs_queued({"": 0})
        assert not place.is_set()
    wake_ups.jobs_queued({"": 3})  # and nobody waits: that is no fault


def test_a_wake_up_that_comes_to_one_who_leaves_goes_on_to_the_next() -> None:
    wake_ups = WakeUps()
    with wake_ups.place({}) as next_in_line:
        with suppress(ConnectionError), wake_ups.place({}):
            wake_ups.jobs_queued({"": 1})  # for next_in_line, who stands before
        assert next_in_line.is_set()
    wake_ups = WakeUps()
    with ExitStack() as stack:
        leaving = stack.enter_context(ExitStack())
        leaving.enter_context(wake_ups.place({}))
        stays = stack.enter_context(wake_ups.place({}))
        wake_ups.jobs_queued({"": 1})
        assert not stays.is_set()
        with pytest.raises(asyncio.CancelledError), leaving:
            raise asyncio.CancelledError  # its client has gone: it will never ask the store
        assert stays.is_set()


def test_closing_wakes_all_for_good() -> None:
    wake_ups = WakeUps()
    with wake_ups.place({}) as first, wake_ups.place({}) as second:
        assert not wake_ups.closed
        wake_ups.close()
        wake_ups.close()
        assert first.is_set()
        assert second.is_set()
        assert wake_ups.closed


class CountedQueue:
    """A queue whose depth each look reads from a script; the last one stays."""

    def __init__(self, *depths: int) -> None:
        self.depths = list(depths)
        self.looks = 0
        self.looked = asyncio.Event()
        self.news = asyncio.Semaphore(0)

    async def queued_requirements(self, limit: int) -> Mapping[str, int]:
        self.looks += 1
        self.looked.set()
        return {"": min(limit, self.depths.pop(0) if len(self.depths) > 1 else self.depths[0])}

    async def jobs_queued_elsewhere(self) -> None:
        await self.news.acquire()


async def test_jobs_that_nobody_told_of_are_found() -> None:
    wake_ups, queue = WakeUps(), CountedQueue(0, 0, 1)
    watching = asyncio.create_task(watch_queue(queue, wake_ups, seconds=0))
    with wake_ups.place({}) as first, wake_ups.place({}) as second:
        await asyncio.wait_for(first.wait(), 30)
        assert queue.looks >= 3
        await asyncio.wait_for(second.wait(), 30)  # one job each look
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


async def test_the_store_is_left_alone_while_nobody_waits() -> None:
    wake_ups, queue = WakeUps(), CountedQueue(5)
    watching = asyncio.create_task(watch_queue(queue, wake_ups, seconds=0))
    for _ in range(50):
        await asyncio.sleep(0)
    assert queue.looks == 0
    with wake_ups.place({}):
        await asyncio.wait_for(queue.looked.wait(), 30)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


async def test_a_store_that_is_away_is_for_the_supervisor() -> None:
    class Away(CountedQueue):
        async def queued_requirements(self, limit: int) -> Mapping[str, int]:
            raise StoreUnavailable("away")

        async def jobs_queued_elsewhere(self) -> None:
            raise StoreUnavailable("away")

    wake_ups = WakeUps()
    with wake_ups.place({}), pytest.raises(StoreUnavailable):
        await asyncio.wait_for(watch_queue(Away(1), wake_ups, seconds=0), 30)
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(listen_for_jobs(Away(1), wake_ups), 30)


async def test_news_of_jobs_queued_elsewhere_wakes_as_many_as_there_are() -> None:
    wake_ups, queue = WakeUps(), CountedQueue(2, 1)
    listening = asyncio.create_task(listen_for_jobs(queue, wake_ups))
    with ExitStack() as stack:
        places = [stack.enter_context(wake_ups.place({})) for _ in range(4)]
        queue.news.release()
        await asyncio.wait_for(places[1].wait(), 30)
        assert [place.is_set() for place in places] == [True, True, False, False]
        queue.news.release()
        await asyncio.wait_for(places[2].wait(), 30)
        assert not places[3].is_set()
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening


async def test_news_that_nobody_waits_for_costs_no_look() -> None:
    wake_ups, queue = WakeUps(), CountedQueue(1)
    listening = asyncio.create_task(listen_for_jobs(queue, wake_ups))
    for _ in range(5):
        queue.news.release()
    for _ in range(50):
        await asyncio.sleep(0)
    assert queue.news.locked()  # all of it was heard
    assert queue.looks == 0
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening
