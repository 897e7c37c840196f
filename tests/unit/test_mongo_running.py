"""Jobs that were handed out are kept at hand, each for one report, and not without end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broadway_api.domain import Claim, Job, JobState, JobType
from broadway_api.store import mongo_running
from broadway_api.store.mongo_running import RunningJobs

JOB = Job(
    id="a", run_id="run", type=JobType.STUDENT, seq=1, state=JobState.RUNNING, worker_id="w", attempt=2, attempt_limit=3
)


def claim_on(job: Job, **fields: object) -> Claim:
    return replace(Claim(job_id=job.id, worker_id=job.worker_id or "", attempt=job.attempt), **fields)  # type: ignore[arg-type]


def test_a_job_is_there_for_one_report() -> None:
    running = RunningJobs()
    running.add(JOB)
    assert ("a" in running, running.held_by("w")) == (True, {"a"})
    assert running.pop(claim_on(JOB, attempt=None)) == JOB
    assert running.pop(claim_on(JOB)) is None
    assert ("a" in running, running.held_by("w")) == (False, frozenset())


@pytest.mark.parametrize("fields", [{"attempt": 1}, {"worker_id": "other"}, {"job_id": "b"}])
def test_no_other_claim_gets_it(fields: dict[str, object]) -> None:
    running = RunningJobs()
    running.add(JOB)
    assert running.pop(claim_on(JOB, **fields)) is None
    assert running.pop(claim_on(JOB)) == JOB


def test_the_oldest_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_running, "CAPACITY", 2)
    running = RunningJobs()
    for name in "abc":
        running.add(replace(JOB, id=name))
    assert running.held_by("w") == {"b", "c"}


def test_a_job_that_another_worker_got_is_no_longer_the_first_ones() -> None:
    running = RunningJobs()
    running.add(JOB)
    running.add(replace(JOB, worker_id="other", attempt=3))
    assert (running.held_by("w"), running.held_by("other")) == (frozenset(), {"a"})
