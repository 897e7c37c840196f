"""What earlier lives of this grader left with the API: results to deliver, and worker ids that still hold jobs."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Collection

from broadway_grader.client import ApiClient
from broadway_grader.delivery import Delivery
from broadway_grader.errors import ApiError, UnknownWorker
from broadway_grader.retry import Backoff, retry
from broadway_grader.spool import SpooledResult
from broadway_grader.worker_ids import WorkerIds

log = logging.getLogger(__name__)


class Recovery:
    """Settles with the API what earlier lives left; a task of its own, so that new jobs need not wait for it.

    For each old worker id first its results, which are accepted as long as it holds their jobs; then it is
    deregistered, which puts the jobs that died with it back into the queue at once instead of when their leases end.
    Until both is done everything stays on disk, so a crash in between repeats a part, which is harmless.
    """

    def __init__(
        self,
        client: ApiClient,
        delivery: Delivery,
        ids: WorkerIds,
        backoff: Backoff,
        *,
        results: Collection[SpooledResult],
        worker_ids: Collection[str],
    ) -> None:
        """`results` and `worker_ids` are those of earlier lives alone, read before this one registers.

        Their containers must be gone by now: a job that was handed back may start elsewhere at once.
        """
        self._client = client
        self._delivery = delivery
        self._ids = ids
        self._backoff = backoff
        self._results: defaultdict[str, list[SpooledResult]] = defaultdict(list)
        for spooled in results:
            self._results[spooled.worker_id].append(spooled)
        self._worker_ids = list(dict.fromkeys([*worker_ids, *self._results]))

    async def run(self) -> None:
        """Settle everything, for as long as that takes. Only once registered: that proves that our token is right."""
        await _all_well(*(self._settle(worker_id) for worker_id in self._worker_ids))

    async def _settle(self, worker_id: str) -> None:
        results = self._results[worker_id]
        log.info("worker %s was an earlier life of this grader: %d results to deliver", worker_id, len(results))
        if not await _all_well(*(self._delivery.redeliver(spooled) for spooled in results)):
            return  # a fault of ours; the id is kept as long as it may be of use to a result
        await self._deregister(worker_id)
        await asyncio.to_thread(self._ids.discard, worker_id)

    async def _deregister(self, worker_id: str) -> None:
        try:
            lost = await retry(
                lambda: self._client.deregister(worker_id, crashed=True),
                "deregistering worker %s of an earlier life",
                worker_id,
                backoff=self._backoff,
            )
        except UnknownWorker:
            log.info("worker %s of an earlier life is no longer known", worker_id)
        except ApiError as error:
            log.error("deregistering worker %s of an earlier life was refused: %s", worker_id, error)  # noqa: TRY400
        else:
            log.info("worker %s of an earlier life is deregistered, %d jobs had died with it", worker_id, len(lost))


async def _all_well(*works: Awaitable[object]) -> bool:
    """Wait for all of them; log those that end with a fault that nobody foresaw, and say whether there was none."""
    faults = [fault for fault in await asyncio.gather(*works, return_exceptions=True) if isinstance(fault, Exception)]
    for fault in faults:
        log.error("recovering what an earlier life left failed", exc_info=fault)
    return not faults
