"""Heartbeats: they renew the leases of the running jobs, and tell which of them have become somebody else's."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from broadway_grader.client import ApiClient
from broadway_grader.errors import ApiError, RetryableError, UnknownWorker
from broadway_grader.registration import Membership
from broadway_grader.retry import Sleep

log = logging.getLogger(__name__)

#: The interval is shortened at random by up to this share, so that the graders of a fleet drift apart.
JITTER = 0.2


class Heartbeat:
    """Sends heartbeats at the interval of the current registration, whatever the jobs are doing."""

    def __init__(
        self,
        client: ApiClient,
        membership: Membership,
        running: Callable[[str], Mapping[str, int]],
        lost: Callable[[str, int], None],
        followed: Callable[[Mapping[str, int], Mapping[str, frozenset[str]]], None],
        *,
        sleep: Sleep = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`running` gives the jobs (id → attempt) held under a worker id; `lost` is told of each to be stopped.

        `followed` is told who follows which of those that were named.
        """
        self._client = client
        self._membership = membership
        self._running = running
        self._lost = lost
        self._followed = followed
        self._sleep = sleep
        self._chance = chance

    async def run(self) -> None:
        """Send heartbeats until cancelled. No answer of the API, nor the lack of one, ends this."""
        while True:
            registration = self._membership.current
            if registration is None:
                raise RuntimeError("a heartbeat needs a registration")
            await self._sleep(registration.heartbeat * (1 - JITTER * self._chance()))
            await self._beat(self._membership.worker_id)

    async def _beat(self, worker_id: str) -> None:
        running = dict(self._running(worker_id))
        try:
            heard = await self._client.heartbeat(worker_id, running)
        except UnknownWorker:
            await self._membership.renew(worker_id)
        except RetryableError as error:
            # The next one comes soon enough: a lease lasts several intervals.
            log.warning("a heartbeat of worker %s failed: %s", worker_id, error)
        except ApiError as error:
            log.error("a heartbeat of worker %s was refused: %s", worker_id, error)  # noqa: TRY400
        else:
            # With the attempt that was named: by now the same job may have come back with another.
            for job_id in heard.lost & running.keys():
                self._lost(job_id, running[job_id])
            self._followed(running, heard.followed)
