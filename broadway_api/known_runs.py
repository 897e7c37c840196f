"""What never changes of a run, kept at hand: jobs of few runs are handed out and looked at many times."""

from __future__ import annotations

from collections import OrderedDict

from broadway_api.domain import RunConfig
from broadway_api.store.port import Store

#: Runs that are kept at hand, each with its config.
CAPACITY = 64


class KnownRuns:
    """The configs of the runs that were asked for last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._configs: OrderedDict[str, RunConfig] = OrderedDict()

    async def config(self, run_id: str) -> RunConfig:
        """Raises RunNotFound."""
        config = self._configs.get(run_id)
        if config is None:
            config = (await self._store.run(run_id)).config
            self._configs[run_id] = config
            if len(self._configs) > CAPACITY:
                self._configs.popitem(last=False)
        return config
