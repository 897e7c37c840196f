"""What never changes of a run, kept at hand: jobs of few runs are handed out and looked at many times."""

from __future__ import annotations

from collections import OrderedDict

from broadway_api.domain import RunConfig
from broadway_api.store.port import Store

#: Runs that are kept at hand, each with its course and its config.
CAPACITY = 64


class KnownRuns:
    """The courses and configs of the runs that were asked for last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[str, RunConfig]] = OrderedDict()

    async def config(self, run_id: str) -> RunConfig:
        """Raises RunNotFound."""
        return (await self._of(run_id))[1]

    async def course(self, run_id: str) -> str:
        """Raises RunNotFound."""
        return (await self._of(run_id))[0]

    async def _of(self, run_id: str) -> tuple[str, RunConfig]:
        known = self._known.get(run_id)
        if known is None:
            run = await self._store.run(run_id)
            known = self._known[run_id] = (run.course, run.config)
            if len(self._known) > CAPACITY:
                self._known.popitem(last=False)
        return known
