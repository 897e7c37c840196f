"""A store that is measured: every call of it timed, and what its answers say of jobs counted.

Whatever becomes of a job is an answer of the store, so nothing else has to count.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from broadway_api.domain import FinishedJob, JobState, Reason
from broadway_api.errors import StoreUnavailable
from broadway_api.metrics import Metrics
from broadway_api.store.port import Store

#: No calls that take time, but waits for something to happen.
_WAITS = frozenset({"jobs_queued_elsewhere", "overheard"})


def measured(store: Store, metrics: Metrics) -> Store:
    """The same store, opened already, whose calls go to `metrics`."""
    return cast(Store, _MeasuredStore(store, metrics))


class _MeasuredStore:
    """Passes everything on."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in _WAITS:
            method = self._measuring(name, method)
        setattr(self, name, method)  # from now on found without asking
        return method

    def _measuring(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        count = _COUNTED.get(name)

        async def measuring(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                answer = await method(*arguments, **named)
            except StoreUnavailable:
                self._metrics.store_failed()
                raise
            finally:
                self._metrics.store_answered(name, time.perf_counter() - began)
            if count is not None:
                count(self._metrics, answer, named)
            return answer

        return measuring


def _claimed(metrics: Metrics, jobs: Any, _: Mapping[str, Any]) -> None:
    for job in jobs:
        if job.queued_at is not None and job.started_at is not None:
            metrics.job_handed_out(max((job.started_at - job.queued_at).total_seconds(), 0.0))


def _finished(metrics: Metrics, finished: Any, _: Mapping[str, Any]) -> None:
    if finished.repeated:
        return
    job = finished.job
    reason = job.attempts[-1].reason if job.state is JobState.QUEUED and job.attempts else job.reason
    metrics.jobs_became(job.state, reason)


def _several_finished(metrics: Metrics, answers: Any, named: Mapping[str, Any]) -> None:
    for answer in answers:
        if isinstance(answer, FinishedJob):
            _finished(metrics, answer, named)


def _exchanged(metrics: Metrics, exchanged: Any, named: Mapping[str, Any]) -> None:
    answers, jobs = exchanged
    _several_finished(metrics, answers, named)
    _claimed(metrics, jobs, named)


def _expired(metrics: Metrics, lost: Any, _: Mapping[str, Any]) -> None:
    metrics.leases_expired(len(lost))
    for job in lost:
        metrics.jobs_became(job.state, Reason.WORKER_LOST)


def _deregistered(metrics: Metrics, lost: Any, named: Mapping[str, Any]) -> None:
    for job in lost:
        metrics.jobs_became(job.state, Reason.WORKER_LOST if named.get("crashed") else None)


def _cancelled(metrics: Metrics, number: Any, _: Mapping[str, Any]) -> None:
    metrics.jobs_became(JobState.CANCELLED, Reason.CANCELLED, number)


#: What the answers of some methods say of jobs.
_COUNTED: dict[str, Callable[[Metrics, Any, Mapping[str, Any]], None]] = {
    "claim_jobs": _claimed,
    "finish_job": _finished,
    "finish_jobs": _several_finished,
    "exchange": _exchanged,
    "expire_leases": _expired,
    "deregister_worker": _deregistered,
    "cancel_jobs": _cancelled,
}
