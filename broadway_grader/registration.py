"""Being known to the API: the worker id, and getting a new one when the old one is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping

from broadway_grader.client import ApiClient, Registration
from broadway_grader.errors import RetryableError, Unauthorized
from broadway_grader.retry import Backoff, retry
from broadway_grader.worker_ids import WorkerIds

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerDetails:
    """What a worker tells of itself."""

    hostname: str
    slots: int
    runtime: str
    version: str
    labels: Mapping[str, str]


class Membership:
    """The worker's current registration."""

    def __init__(self, client: ApiClient, details: WorkerDetails, ids: WorkerIds, backoff: Backoff) -> None:
        self._client = client
        self._details = details
        self._ids = ids
        self._backoff = backoff
        self._current: Registration | None = None
        self._renewal = asyncio.Lock()

    @property
    def current(self) -> Registration | None:
        """The registration; None before the first."""
        return self._current

    @property
    def worker_id(self) -> str:
        """The current worker id. Only after `join`."""
        assert self._current is not None, "join() comes first"  # noqa: S101 - a mistake of ours
        return self._current.worker_id

    async def join(self) -> Registration:
        """Register for the first time, for as long as it takes. Raises Unauthorized if the token is refused."""
        registration = await retry(self._register, "registering", backoff=self._backoff)
        await asyncio.to_thread(self._ids.add, registration.worker_id)
        self._current = registration
        log.info("registered as worker %s, a heartbeat every %g s", registration.worker_id, registration.heartbeat)
        return registration

    async def renew(self, refused: str) -> None:
        """Register again because the id `refused` is unknown. Of several that notice at once, one does it."""
        async with self._renewal:
            if self._current is not None and self._current.worker_id != refused:
                return
            log.warning("the API no longer knows worker %s, registering again", refused)
            registration = await retry(
                self._register_patiently, "registering again instead of worker %s", refused, backoff=self._backoff
            )
            await asyncio.to_thread(self._ids.add, registration.worker_id)
            self._current = registration
            await asyncio.to_thread(self._ids.discard, refused)
            log.info("registered again as worker %s", registration.worker_id)

    async def left(self) -> None:
        """Note that the API has forgotten the current id."""
        await asyncio.to_thread(self._ids.discard, self.worker_id)

    async def _register(self) -> Registration:
        return await self._client.register(**dataclasses.asdict(self._details))

    async def _register_patiently(self) -> Registration:
        # The token was right when we started. An API that comes back with another one is being set up wrongly, or is
        # not ours: that passes, and the jobs that run here deserve the patience.
        try:
            return await self._register()
        except Unauthorized as error:
            raise RetryableError(str(error)) from error
