"""A run's jobs, however many, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

from broadway_api.domain import Job
from broadway_api.store.port import Store

#: Some 20 ms of the event loop.
_PAGE = 500


async def all_jobs(store: Store, run_id: str) -> AsyncIterator[Job]:
    """Every job of the run, as lists have them, in order."""
    after: int | None = None
    while page := await store.run_jobs(run_id, limit=_PAGE, after=after):
        for job in page:
            yield job
        after = page[-1].seq
