"""What never changes of a run, kept at hand: jobs of few runs are handed out and looked at many times."""

from __future__ import annotations

from collections import OrderedDict

from broadway_api import json_text, runconfig
from broadway_api.domain import JobType, Run, RunConfig
from broadway_api.job_plans import JobPlan
from broadway_api.store.port import Store

#: Runs that are kept at hand, and bytes of their configs, as JSON: hundreds of runs take turns on the night of a
#: deadline, and to ask the store for each job's run costs as much again as the job.
MOST_RUNS = 1_024
MOST_BYTES = 32 * 1024 * 1024


class KnownRuns:
    """The courses and configs of the runs that were asked for last, and what follows from a config alone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, _KnownRun] = OrderedDict()
        self._bytes = 0

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
            return self._keep(await self._store.run(run_id))
        self._known.move_to_end(run_id)
        return known

    def _keep(self, run: Run) -> _KnownRun:
        if run.id in self._known:  # somebody else asked for it at the same time
            return self._known[run.id]
        known = self._known[run.id] = _KnownRun(run)
        self._bytes += known.size
        while len(self._known) > MOST_RUNS or (self._bytes > MOST_BYTES and len(self._known) > 1):
            self._bytes -= self._known.popitem(last=False)[1].size
        return known


class _KnownRun:
    def __init__(self, run: Run) -> None:
        self.course = run.course
        self.config = run.config
        self.size = len(json_text.encode(runconfig.to_json(run.config)))
        self._plans: dict[JobType, JobPlan] = {}

    def plan(self, job_type: JobType) -> JobPlan:
        plan = self._plans.get(job_type)
        if plan is None:
            plan = self._plans[job_type] = JobPlan(self.config, job_type)
        return plan
