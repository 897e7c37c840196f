"""Jobs as this process handed them out: who reports one, or asks for more, mostly needs nothing else to be read."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Set

from broadway_api.domain import Claim, Job

#: Jobs that are kept at hand: those of a large fleet, in a few megabytes.
CAPACITY = 4_096


class RunningJobs:
    """The jobs that were handed out last, by id and by worker.

    Nothing but its lease changes of a job while an attempt goes on, and no two attempts have one number. So whoever
    writes with the attempt as guard finds the job as it is here, or finds that it does not run any more.
    """

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._held: defaultdict[str, set[str]] = defaultdict(set)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    def held_by(self, worker_id: str) -> Set[str]:
        """Ids of those of the jobs that a worker holds, as far as is known here."""
        return self._held.get(worker_id, frozenset())

    def add(self, job: Job) -> None:
        """Keep what was handed out."""
        self.discard([job.id])
        self._jobs[job.id] = job
        self._held[job.worker_id or ""].add(job.id)
        if len(self._jobs) > CAPACITY:
            self.discard([next(iter(self._jobs))])

    def pop(self, claim: Claim) -> Job | None:
        """The job of a claim, if it was kept; once, so that whoever comes too late reads what became of it."""
        job = self._jobs.get(claim.job_id)
        if job is None or not holds(claim, job):
            return None
        self.discard([job.id])
        return job

    def discard(self, job_ids: Iterable[str]) -> None:
        """Forget jobs, if they are known."""
        for job_id in job_ids:
            job = self._jobs.pop(job_id, None)
            if job is not None and job.worker_id is not None:
                held = self._held[job.worker_id]
                held.discard(job_id)
                if not held:
                    del self._held[job.worker_id]


def holds(claim: Claim, job: Job) -> bool:
    """Whether the claim is on the attempt at this running job."""
    return job.worker_id == claim.worker_id and claim.attempt in (None, job.attempt)
