"""Celery: two prefork processes, Redis or RabbitMQ, results in Redis.

From its user guide (Tasks, Workers, Optimizing): `acks_late` acknowledges a job after it ran, and
`reject_on_worker_lost` puts back the job of a process that was killed. All else is as it comes: each process is sent 4
jobs ahead; on RabbitMQ queues are durable and messages persistent, and nobody waits for publisher confirms.
"""

from __future__ import annotations

import time

from celery import Celery
from redis import Redis

from benchmarks.peers import peer

app = Celery("benchmarks.peers.celery_peer", broker=peer.BROKER, backend=peer.RESULTS)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True} if peer.CONFIRM else {},
)
no_op = app.task(name="no_op")(peer.no_op)


class CeleryPeer:
    """See `peer.Peer`."""

    def __init__(self) -> None:
        self._results = Redis.from_url(peer.RESULTS)

    async def open(self) -> None:
        """Each call connects by itself."""

    async def enqueue(self, jobs: int) -> None:
        for _ in range(jobs):
            no_op.delay()

    async def ended(self) -> int:
        return int(self._results.dbsize())

    async def latency(self) -> float:
        began = time.monotonic()
        return float(no_op.delay().get(timeout=30)) - began


PEER = CeleryPeer()
