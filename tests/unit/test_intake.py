"""From a body to a run with its jobs: what is taken, exactly, and what is refused, and where."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broadway_api import ids, runconfig
from broadway_api.domain import Job, JobState, JobType, Run, RunState
from broadway_api.errors import InvalidInput, NotJson
from broadway_api.intake import MAX_RECORD, Intake, idempotency_key
from broadway_api.policy import Policy

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
SAMPLE = Path(__file__).parents[1] / "samples" / "run_config.json"


def plan(body: Any, policy: Policy | None = None) -> tuple[Run, list[Job]]:
    return Intake(policy or Policy()).plan(json.dumps(body).encode(), NOW)


def run_config(**changes: Any) -> dict[str, Any]:
    return {"students": [{"NET_ID": "ada"}], "student_pipeline": [{"image": "i"}]} | changes


def refused(body: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        plan(body)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_jobs_stand_in_the_order_of_the_run() -> None:
    run, jobs = Intake(Policy(job_max_attempts=7)).plan(SAMPLE.read_bytes(), NOW)
    assert [(job.type, job.seq) for job in jobs] == [
        (JobType.PRE_PROCESSING, 0),
        (JobType.STUDENT, 1),
        (JobType.STUDENT, 2),
        (JobType.POST_PROCESSING, 3),
    ]
    assert {job.run_id for job in jobs} == {run.id}
    assert len({job.id for job in jobs} | {run.id}) == 5
    assert all(ids.is_id(job.id) for job in jobs)
    assert {(job.state, job.attempt, job.attempt_limit) for job in jobs} == {(JobState.WAITING, 0, 7)}
    assert (run.state, run.created_at, run.started_at) == (RunState.READY, NOW, None)


def test_the_roster_begins_at_one_also_without_pre_processing() -> None:
    _, jobs = plan(run_config(students=[{"A": 1}, {"A": 2}]))
    assert [job.seq for job in jobs] == [1, 2]


def test_a_roster_entry_keeps_its_types_and_its_order() -> None:
    entry = {"Z": "01", "A": 1, "M": 1.0, "B": True, "L": 12345678901234567890123, "E": ""}
    _, jobs = plan(run_config(students=[entry, {}]))
    kept = jobs[0].student
    assert kept is not None
    assert [(name, value, type(value)) for name, value in kept.items()] == [
        (name, value, type(value)) for name, value in entry.items()
    ]
    assert jobs[1].student == {}


def test_defaults_are_the_specifications() -> None:
    run, _ = plan(run_config())
    (stage,) = run.config.student_pipeline
    assert (stage.timeout, stage.enable_networking, stage.entry_point, stage.privileged) == (30, False, None, False)
    assert run.config.pre_processing_pipeline is None
    assert run.config.env == {}


def test_a_config_that_was_written_reads_as_itself() -> None:
    run, _ = Intake(Policy()).plan(SAMPLE.read_bytes(), NOW)
    assert runconfig.from_json(json.loads(json.dumps(runconfig.to_json(run.config)))) == run.config


def test_whole_numbers_are_integers_however_they_were_written() -> None:
    """JSON Schema calls 64.0 an integer, and engines that are written in Go do not."""
    body = b'{"students": [{}], "student_pipeline": [{"image": "i", "pids": 64.0, "memory": 1e9}]}'
    run, _ = Intake(Policy()).plan(body, NOW)
    (stage,) = run.config.student_pipeline
    assert (stage.pids, type(stage.pids)) == (64, int)
    assert (stage.memory, type(stage.memory)) == (1_000_000_000, int)


@pytest.mark.parametrize("name", ["student_pipeline", "pre_processing_pipeline", "post_processing_pipeline"])
def test_faults_of_templates_name_their_pipeline(name: str) -> None:
    found = refused(run_config(**{name: [{"image": "i"}, {"image": "i", "env": {"A": "$NOPE"}}]}))
    assert set(found) == {f"$.{name}[1].env.A"}


def test_a_circle_in_the_runs_env_is_refused_once() -> None:
    found = refused(run_config(env={"A": "$B", "B": "$A"}))
    assert set(found) == {"$.env.A", "$.env.B"}


def test_a_record_larger_than_a_store_keeps_is_refused() -> None:
    long = [{"image": "i", "env": {"A": "x" * 120_000}}] * 20
    three = dict.fromkeys(("pre_processing_pipeline", "student_pipeline", "post_processing_pipeline"), long)
    assert set(refused(run_config(**three))) == {"$"}
    assert MAX_RECORD * 3 < 16 * 2**20


def test_what_is_not_json_is_told_before_anything_else() -> None:
    with pytest.raises(NotJson):
        Intake(Policy()).plan(b"", NOW)


def test_the_same_body_twice_is_two_runs() -> None:
    assert plan(run_config())[0].id != plan(run_config())[0].id


def test_a_key_names_its_body() -> None:
    first, same, other = (idempotency_key("k", body) for body in (b"a", b"a", b"b"))
    assert first == same
    assert first != other
    assert idempotency_key(None, b"a") is None


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "tab\t", "ä", "a\n"])
def test_a_malformed_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="Idempotency-Key"):
        idempotency_key(key, b"")


@pytest.mark.parametrize("key", ["!", "x" * 255, '"quoted"', "a,b"])
def test_visible_ascii_is_a_key(key: str) -> None:
    assert idempotency_key(key, b"") is not None
