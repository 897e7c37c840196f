"""Dramatiq: two processes of eight threads, RabbitMQ, results in Redis.

From its documentation (Best Practices, Results, the reference of RabbitmqBroker): a message is acknowledged after its
job ran, and retried if that failed; queues are durable, messages persistent. `confirm_delivery` is off by default.
"""

from __future__ import annotations

import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from benchmarks.peers import peer

broker = RabbitmqBroker(url=peer.BROKER, confirm_delivery=peer.CONFIRM)
broker.add_middleware(Results(backend=RedisBackend(url=peer.RESULTS)))
dramatiq.set_broker(broker)
no_op = dramatiq.actor(peer.no_op, store_results=True)


class DramatiqPeer:
    """See `peer.Peer`."""

    def __init__(self) -> None:
        self._results = Redis.from_url(peer.RESULTS)

    async def open(self) -> None:
        """Each call connects by itself."""

    async def enqueue(self, jobs: int) -> None:
        for _ in range(jobs):
            no_op.send()

    async def ended(self) -> int:
        return int(self._results.dbsize())

    async def latency(self) -> float:
        began = time.monotonic()
        return float(no_op.send().get_result(block=True, timeout=30_000)) - began


PEER = DramatiqPeer()
