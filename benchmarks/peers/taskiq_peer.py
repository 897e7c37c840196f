"""Taskiq: two processes of up to a hundred coroutines, on uvloop; a Redis stream, results in Redis.

From its documentation (Available brokers, CLI): RedisStreamBroker is the Redis broker with acknowledgements, which by
default are made when the result is saved.
"""

from __future__ import annotations

import asyncio
import time

from redis.asyncio import Redis
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers import peer

#: Jobs handed in at a time; more make no difference.
_AT_ONCE = 100

broker = RedisStreamBroker(peer.BROKER).with_result_backend(RedisAsyncResultBackend(peer.RESULTS))


async def _no_op() -> float:
    """The job, as a coroutine, which is what Taskiq is for."""
    return peer.no_op()


no_op = broker.task(_no_op)


class TaskiqPeer:
    """See `peer.Peer`."""

    def __init__(self) -> None:
        self._results = Redis.from_url(peer.RESULTS)

    async def open(self) -> None:
        await broker.startup()

    async def enqueue(self, jobs: int) -> None:
        for first in range(0, jobs, _AT_ONCE):
            await asyncio.gather(*(no_op.kiq() for _ in range(min(_AT_ONCE, jobs - first))))

    async def ended(self) -> int:
        return int(await self._results.dbsize())

    async def latency(self) -> float:
        began = time.monotonic()
        task = await no_op.kiq()
        return float((await task.wait_result(check_interval=0.005, timeout=30)).return_value) - began


PEER = TaskiqPeer()
