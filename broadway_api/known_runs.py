"""What never changes of a run, kept at hand: jobs of few runs are handed out and looked at many times."""

from __future__ import annotations

from collections import OrderedDict

from broadway_api.domain import JobType, Run, RunConfig
from broadway_api.job_plans import JobPlan
from broadway_api.store.port import Store

#: Runs that are kept at hand, each with its course and its config.
CAPACITY = 64


class KnownRuns:
    """The courses and configs of the runs that were asked for last, and what follows from a config alone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, _KnownRun] = OrderedDict()

    async def config(self, run_id: str) -> RunConfig:
        """Raises RunNotFound."""
        return (await self._of(run_id)).config

    async def course(self, run_id: str) -> str:
        """Raises RunNotFound."""
        return (await self._of(run_id)).course

    async def plan(self, run_id: str, job_type: JobType) -> JobPlan:
        """What the run's jobs of a type share. Raises RunNotFound."""
        return (await self._of(run_id)).plan(job_type)

    async def _of(self, run_id: str) -> _KnownRun:
        known = self._known.get(run_id)
        if known is None:
            known = self._known[run_id] = _KnownRun(await self._store.run(run_id))
            if len(self._known) > CAPACITY:
                self._known.popitem(last=False)
        return known


class _KnownRun:
    def __init__(self, run: Run) -> None:
        self.course = run.course
        self.config = run.config
        self._plans: dict[JobType, JobPlan] = {}

    def plan(self, job_type: JobType) -> JobPlan:
        plan = self._plans.get(job_type)
        if plan is None:
            plan = self._plans[job_type] = JobPlan(self.config, job_type)
        return plan
