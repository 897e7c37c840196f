"""What API processes that share a store tell one another, and nobody keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from broadway_api.store.port import Store

DEADLINE = 30


async def until_heard(store: Store, number: int) -> list[int]:
    """The numbers of all notes up to that one."""
    heard: list[int] = []
    async with asyncio.timeout(DEADLINE):
        while number not in heard:
            heard += [note["number"] for note in await store.overheard()]
    return heard


async def stop(listening: asyncio.Task[Any]) -> None:
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening


@pytest.mark.parametrize("backend", ["mongo-standalone", "mongo-replica-set"], indirect=True)
async def test_others_hear_in_order_what_one_tells(store: Store, peer: Store) -> None:
    listening = asyncio.create_task(until_heard(peer, 3))
    notes: list[Mapping[str, Any]] = [
        {"number": number, "bytes": b"\xff\0", "in": [{"a": None}]} for number in range(4)
    ]
    for note in notes:
        await store.broadcast(note)
    assert await listening == [0, 1, 2, 3]

    await store.broadcast({"number": 4})  # while nobody listens
    assert await until_heard(peer, 4) == [4]


async def test_nobody_hears_oneself(store: Store) -> None:
    listening = asyncio.create_task(store.overheard())
    await store.broadcast({"number": 1})
    await asyncio.wait([listening], timeout=0.5)
    assert not listening.done()
    await stop(listening)


@pytest.mark.parametrize("backend", ["mongo-replica-set"], indirect=True)
async def test_listening_can_be_given_up_and_begun_again(store: Store, peer: Store) -> None:
    for number in range(2):
        listening = asyncio.create_task(until_heard(peer, number))
        await store.broadcast({"number": number})
        assert number in await listening
        silent = asyncio.create_task(peer.overheard())
        await asyncio.wait([silent], timeout=0.2)
        assert not silent.done()
        await stop(silent)


@pytest.mark.parametrize("backend", ["mongo-replica-set"], indirect=True)
async def test_who_falls_far_behind_hears_what_is_still_there(store: Store, peer: Store) -> None:
    """The collection is bounded: 16 MiB of it, in which the newest overwrites the oldest."""
    await store.broadcast({"number": 0})
    assert 0 in await until_heard(peer, 0)
    for number in range(1, 26):
        await store.broadcast({"number": number, "bytes": bytes(1_000_000)})
    heard = await until_heard(peer, 25)
    assert heard[-1] == 25
