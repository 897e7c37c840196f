"""A large class on the deployment that is meant for it: MongoDB, Docker, two graders of four slots."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.e2e.classes import run_config, three_stages
from tests.e2e.fleet import Fleet

#: Three containers each; `make e2e-large` asks for 200.
STUDENTS = int(os.environ.get("BROADWAY_TEST_STUDENTS") or 60)


@pytest.mark.timeout(60 + 5 * STUDENTS)
def test_every_student_of_a_large_class_gets_exactly_one_result_and_nothing_is_left(
    fleets: Callable[[str], Fleet], mongo_database: str
) -> None:
    fleet = fleets(mongo_database)
    fleet.start_api()
    for name in ("one", "two"):
        fleet.start_grader(name, runtime="docker", slots=4)
    students = [{"NET_ID": f"student{number}"} for number in range(STUDENTS)]
    run_id = fleet.grade(run_config(*students, stages=three_stages()))
    end = fleet.finish(run_id, seconds=30 + 4 * STUDENTS)

    assert (end["state"], end["counts"]["succeeded"]) == ("finished", STUDENTS)
    jobs = fleet.jobs(run_id)
    assert [job["student"] for job in jobs] == students
    assert {job["attempt"] for job in jobs} == {1}
    for job in jobs:
        net_id = job["student"]["NET_ID"]
        assert fleet.stdout(job) == {2: f"score {len(net_id) + 1} {net_id}\n"}
    shares = [worker["jobs_processed"] for worker in fleet.alive_workers()]
    assert sum(shares) == STUDENTS, "each accepted result counts once for the worker that sent it"
    assert min(shares) > 0, "both graders took part"
    fleet.stop()
    assert fleet.leftovers() == []
