"""RQ: two SimpleWorkers, which run jobs without forking for each; Redis.

From its documentation (Workers, Exceptions & Retries): SimpleWorker is its fastest worker; jobs are handed in many at a
time by `enqueue_many`; one that a dead worker left is found by the next round of maintenance and, having retries left,
put back.
"""

from __future__ import annotations

import time
from typing import Any

from redis import Redis
from rq import Queue, Retry
from rq.registry import FinishedJobRegistry

from benchmarks.peers import peer


class RqPeer:
    """See `peer.Peer`."""

    def __init__(self) -> None:
        connection = Redis.from_url(peer.BROKER)
        self._queue = Queue(connection=connection)
        self._finished = FinishedJobRegistry(queue=self._queue)

    async def open(self) -> None:
        """Each call connects by itself."""

    async def enqueue(self, jobs: int) -> None:
        self._queue.enqueue_many([self._job() for _ in range(jobs)])

    async def ended(self) -> int:
        return int(self._finished.get_job_count(cleanup=False))

    async def latency(self) -> float:
        began = time.monotonic()
        job = self._queue.enqueue(peer.no_op, retry=Retry(max=3))
        return float(job.latest_result(timeout=30).return_value) - began

    @staticmethod
    def _job() -> Any:
        return Queue.prepare_data(peer.no_op, retry=Retry(max=3))


PEER = RqPeer()
