"""Whatever workers, clocks and networks do, in whatever order: a model of two workers and three jobs holds the store
to the contract, step by step.

Reports are drawn from every claim that was ever handed out, so most of them are late, repeated or somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broadway_api.domain import Claim, Job, JobState, JobType, Reason, Result, Run, RunState
from broadway_api.errors import ClaimLost
from broadway_api.lifecycle import RETRY_ELSEWHERE
from broadway_api.store import open_store
from broadway_api.store.port import Store
from tests.contract.backends import Backend, MongoBackend, SqliteBackend
from tests.contract.scenarios import ATTEMPT_LIMIT, LEASE, NOW, claim_on, failure, jobs_of, started, success, worker

T = TypeVar("T")

JOBS = 3
RESULTS = {"success": success(), "student's fault": failure(), "fleet's fault": failure(Reason.RUNTIME_ERROR)}
EXAMPLES = {SqliteBackend: 60, MongoBackend: 15}


@dataclass(kw_only=True)
class ModelJob:
    """What the contract says that a job is."""

    id: str
    state: JobState = JobState.QUEUED
    attempt: int = 0
    attempt_limit: int = ATTEMPT_LIMIT
    holder: str | None = None
    lease_expires_at: datetime | None = None
    avoid: str | None = None  # who is to have it last,
    avoid_until: datetime = NOW  # until then
    reported: list[Claim] = field(default_factory=list)  # whose results were accepted

    def held_by(self, claim: Claim) -> bool:
        return self.holder == claim.worker_id and claim.attempt in (None, self.attempt)

    def lose(self, *, now: datetime | None = None) -> None:
        """The attempt is over without an end of the job; with `now`, others are to try it next."""
        self.avoid = self.holder if now else None
        self.avoid_until = now + RETRY_ELSEWHERE if now else NOW
        self.state = JobState.QUEUED if self.attempt < self.attempt_limit else JobState.FAILED
        self.holder = self.lease_expires_at = None


class AnyOrder(RuleBasedStateMachine):
    """Each rule does one thing to the store and the same to the model."""

    backend: Backend
    claims: Bundle[Claim] = Bundle("claims")
    workers: Bundle[str] = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = NOW
        self.backend.clear()
        self.store: Store = open_store(self.backend.url)
        self.wait(self.store.__aenter__())
        self.run_: Run = self.wait(started(self.store, JOBS))
        self.jobs = {job.id: ModelJob(id=job.id) for job in self.wait(jobs_of(self.store, self.run_))}
        self.attempts_seen = dict.fromkeys(self.jobs, 0)
        self.last_seen: dict[str, datetime] = {}
        self.draining: set[str] = set()
        self.cancelled = False
        self.retries = 0

    def wait(self, work: Awaitable[T]) -> T:
        async def waiting() -> T:
            return await work

        return self.runner.run(waiting())

    def teardown(self) -> None:
        self.wait(self.store.__aexit__(None, None, None))
        self.runner.close()

    @initialize(target=workers)
    def two_workers(self) -> Any:
        return multiple(*(self.new_worker() for _ in range(2)))

    def new_worker(self) -> str:
        worker_id = self.wait(worker(self.store, seen=self.now))
        self.last_seen[worker_id] = self.now
        return worker_id

    @rule(seconds=st.sampled_from([1, 20, 61]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(target=claims, worker_id=workers, n=st.integers(1, JOBS), forgetful=st.booleans())
    def claim(self, worker_id: str, n: int, forgetful: bool) -> Any:
        held = [job for job in self.jobs.values() if job.holder == worker_id]
        again = held if forgetful else []
        self.last_seen[worker_id] = self.now
        expected = [*again[:n], *self.queued_for(worker_id)[: max(n - len(again), 0)]]
        for job in expected:
            if job.state is JobState.QUEUED:
                job.attempt += 1
            job.state, job.holder, job.lease_expires_at = JobState.RUNNING, worker_id, self.now + LEASE

        holding = [] if forgetful else [job.id for job in held]
        jobs = self.wait(self.store.claim_jobs(worker_id, n, self.now, LEASE, holding=holding))

        assert [(job.id, job.attempt) for job in jobs] == [(job.id, job.attempt) for job in expected]
        return multiple(*map(claim_on, jobs))

    def queued_for(self, worker_id: str) -> list[ModelJob]:
        """What a worker may have, in order: what others are to try first comes last, and only if there are none."""
        if worker_id in self.draining:
            return []
        queued = [job for job in self.jobs.values() if job.state is JobState.QUEUED]
        for_others = [job for job in queued if job.avoid == worker_id and job.avoid_until > self.now]
        alone = not any(seen > self.now - LEASE for other, seen in self.last_seen.items() if other != worker_id)
        return [job for job in queued if job not in for_others] + (for_others if alone else [])

    @rule(worker_id=workers, draining=st.booleans())
    def drain(self, worker_id: str, draining: bool) -> None:
        (self.draining.add if draining else self.draining.discard)(worker_id)
        self.wait(self.store.set_draining(worker_id, draining))

    @precondition(lambda self: not self.cancelled)
    @rule()
    def cancel(self) -> None:
        live = [job for job in self.jobs.values() if not job.state.ended]
        for job in live:
            job.state, job.holder, job.lease_expires_at = JobState.CANCELLED, None, None
        moved = self.store.advance_run(self.run_.id, leaving=RunState.STUDENTS, to=RunState.CANCELLED, now=self.now)
        assert self.wait(moved)
        assert self.wait(self.store.cancel_jobs(self.run_.id, self.now)) == len(live)
        self.wait(self.store.settle_run(self.run_.id))
        self.cancelled = True

    @precondition(lambda self: self.cancelled)
    @rule()
    def retry(self) -> None:
        for job in self.jobs.values():
            job.state, job.attempt_limit, job.avoid = JobState.QUEUED, job.attempt + ATTEMPT_LIMIT, None
        ways = {"leaving": RunState.CANCELLED, "to": RunState.STUDENTS}
        assert self.wait(self.store.retry_jobs(self.run_.id, list(self.jobs), ATTEMPT_LIMIT, **ways))
        assert self.wait(self.store.open_phase(self.run_.id, JobType.STUDENT, self.now)) == JOBS
        self.cancelled = False
        self.retries += 1

    @rule(claim=claims, kind=st.sampled_from(sorted(RESULTS)), old_release=st.booleans())
    def report(self, claim: Claim, kind: str, old_release: bool) -> None:
        if old_release:
            claim = Claim(job_id=claim.job_id, worker_id=claim.worker_id, attempt=None)
        job, result = self.jobs[claim.job_id], RESULTS[kind]
        repeated = any(
            one.worker_id == claim.worker_id and claim.attempt in (None, one.attempt) for one in job.reported
        )
        held = job.held_by(claim)
        if held:
            self.accept(job, result)
        try:
            finished = self.wait(self.store.finish_job(claim, result, self.now))
        except ClaimLost:
            assert not held
            assert not repeated
            return
        assert held or repeated
        assert finished.job.state is job.state
        assert finished.phase_over == all(one.state.ended for one in self.jobs.values())

    def accept(self, job: ModelJob, result: Result) -> None:
        assert job.holder is not None
        job.reported.append(Claim(job_id=job.id, worker_id=job.holder, attempt=job.attempt))
        if result.reason is Reason.RUNTIME_ERROR:
            job.lose(now=self.now)
        else:
            job.state = JobState.SUCCEEDED if result.success else JobState.FAILED
            job.holder = job.lease_expires_at = None

    @rule(worker_id=workers, named=st.lists(claims, max_size=4, unique_by=lambda claim: claim.job_id))
    def heartbeat(self, worker_id: str, named: list[Claim]) -> None:
        kept = {
            claim.job_id for claim in named if claim.worker_id == worker_id and self.jobs[claim.job_id].held_by(claim)
        }
        for job_id in kept:
            self.jobs[job_id].lease_expires_at = self.now + LEASE

        self.last_seen[worker_id] = self.now
        own = [Claim(job_id=claim.job_id, worker_id=worker_id, attempt=claim.attempt) for claim in named]
        lost = self.wait(self.store.heartbeat(worker_id, own, self.now, LEASE))

        assert lost == [claim.job_id for claim in named if claim.job_id not in kept]

    @rule()
    def expire(self) -> None:
        over = [job for job in self.jobs.values() if job.lease_expires_at and job.lease_expires_at <= self.now]
        for job in over:
            job.lose(now=self.now)

        lost = self.wait(self.store.expire_leases(self.now, LEASE))

        assert {one.job_id: one.state for one in lost} == {job.id: job.state for job in over}

    @rule(target=workers, worker_id=consumes(workers))
    def restart_worker(self, worker_id: str) -> str:
        held = [job for job in self.jobs.values() if job.holder == worker_id]
        for job in held:
            job.attempt_limit += 1
            job.lose()

        handed_back = self.wait(self.store.deregister_worker(worker_id, self.now))

        assert {one.job_id for one in handed_back} == {job.id for job in held}
        del self.last_seen[worker_id]
        return self.new_worker()

    @invariant()
    def the_store_is_what_the_model_is(self) -> None:
        for job_id, expected in self.jobs.items():
            job: Job = self.wait(self.store.job(job_id))
            assert (job.state, job.attempt, job.attempt_limit) == (
                expected.state,
                expected.attempt,
                expected.attempt_limit,
            )
            assert (job.worker_id if job.state is JobState.RUNNING else None) == expected.holder
            assert job.lease_expires_at == expected.lease_expires_at

    @invariant()
    def an_attempt_never_falls_nor_ends_twice(self) -> None:
        for job_id in self.jobs:
            job: Job = self.wait(self.store.job(job_id))
            assert self.attempts_seen[job_id] <= job.attempt <= job.attempt_limit
            self.attempts_seen[job_id] = job.attempt
            numbers = [ended.number for ended in job.attempts]
            assert numbers == sorted(set(numbers))
            final = [ended for ended in job.attempts if ended.reported and not _of_the_fleet(ended.reason)]
            assert len(final) <= 1 + self.retries


def _of_the_fleet(reason: Reason | None) -> bool:
    return reason is not None and reason.is_infrastructure


def test_whatever_happens_in_whatever_order_the_contract_holds(backend: Backend) -> None:
    machine: Any = type("AnyOrderHere", (AnyOrder,), {"backend": backend})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES[type(backend)],
            stateful_step_count=25,
            deadline=None,  # a step may wait for a disk
            derandomize=True,  # the same steps for everybody: a failure here is never a matter of luck
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
