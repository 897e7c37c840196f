"""What graders of the course protocol do: they choose their own ids, and name neither attempts nor what they hold.

Each registration is a worker of the fleet under an id of ours, which has the chosen one as its name. So a result is
fenced by the registration that took its job, and a name that comes back finds nothing of its former life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from broadway_api import capabilities
from broadway_api.domain import Claim, JobState, Result, Worker
from broadway_api.errors import UnknownWorker, WorkerNameTaken
from broadway_api.fleet import Fleet
from broadway_api.handouts import Handout
from broadway_api.policy import Policy
from broadway_api.store.port import Store
from broadway_api.tenants import Principal

#: Heartbeat intervals of silence after which a name is free again, as these graders expect.
SILENT_BEATS = 2

#: Seconds between two looks for a name that is about to be given back.
_AGAIN_AFTER = 0.1


class NamedWorkers:
    """Workers of one slot each, known by their names."""

    def __init__(self, store: Store, fleet: Fleet, policy: Policy, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._fleet = fleet
        self._now = now
        self._silence = timedelta(seconds=SILENT_BEATS * policy.heartbeat_interval)

    async def register(self, name: str, hostname: str, *, patience: float = 0, by: Principal) -> Worker:
        """Admit a worker; what a silent one of that name held died with it.

        Waits up to `patience` seconds for the name: who closes a connection and opens another may be faster than what
        the first one leaves behind. Raises WorkerNameTaken.
        """
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            try:
                return await self._register(name, hostname, by)
            except WorkerNameTaken:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                await asyncio.sleep(_AGAIN_AFTER)

    async def _register(self, name: str, hostname: str, by: Principal) -> Worker:
        with suppress(UnknownWorker):
            former = await self._store.worker_named(name)
            if self._now() - former.last_seen < self._silence:
                raise WorkerNameTaken(name)
            await self._fleet.deregister(former.id, crashed=True, by=by)
        return await self._fleet.register(name=name, hostname=hostname, labels=capabilities.COURSE_PROTOCOL, by=by)

    async def worker(self, name: str) -> Worker:
        """Raises UnknownWorker."""
        return await self._store.worker_named(name)

    async def exists(self, name: str) -> bool:
        """Whether a worker of that name is registered."""
        try:
            await self._store.worker_named(name)
        except UnknownWorker:
            return False
        return True

    async def poll(self, name: str, *, by: Principal) -> Handout | None:
        """The next job for a worker, or None. Raises UnknownWorker.

        It is not given a job twice. One that it holds already it may still report; but since it asks again it is not
        working on it, so from now on nobody renews that lease (see `heartbeat`), and the job comes round again.
        """
        worker = await self._store.worker_named(name)
        held = await self._store.held_jobs(worker.id)
        handouts = await self._fleet.claim(worker.id, 1, [job.id for job in held], 0, by=by)
        return handouts[0] if handouts else None

    async def heartbeat(self, name: str, *, by: Principal) -> None:
        """Renew the lease of what the worker's last poll gave it. Raises UnknownWorker."""
        worker = await self._store.worker_named(name)
        running = [
            Claim(job_id=job.id, worker_id=worker.id, attempt=job.attempt)
            for job in await self._store.held_jobs(worker.id)
            if worker.asked_at is None or job.started_at is None or job.started_at >= worker.asked_at
        ]
        await self._fleet.heartbeat(worker.id, running, by=by)

    async def finish(self, name: str, job_id: str, result: Result, *, by: Principal) -> JobState:
        """Accept what came of a job. Raises UnknownWorker, ClaimLost, JobNotFound."""
        worker = await self._store.worker_named(name)
        return await self._fleet.finish(Claim(job_id=job_id, worker_id=worker.id, attempt=None), result, by=by)
