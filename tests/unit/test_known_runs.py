"""What is kept at hand of runs: those that were asked for last, within bounds, each as it is in the store."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from broadway_api import known_runs
from broadway_api.domain import JobType, Run, RunConfig, Stage
from broadway_api.known_runs import KnownRuns
from broadway_api.store.port import Store
from tests.contract.scenarios import NOW


class Asked:
    """A store of runs whose configs are of any size; `asked` for each, in order."""

    def __init__(self, **sizes: int) -> None:
        self._sizes = sizes
        self.asked: list[str] = []

    async def run(self, run_id: str) -> Run:
        self.asked.append(run_id)
        await asyncio.sleep(0)
        stage = Stage(image="i", env={"OF": run_id})
        config = RunConfig(student_pipeline=(stage,), env={"PAD": "x" * self._sizes.get(run_id, 0)})
        return Run(id=run_id, course=f"course of {run_id}", config=config, created_at=NOW)


def knowing(store: Asked) -> KnownRuns:
    return KnownRuns(cast(Store, store))


async def test_what_follows_from_a_config_is_its_runs_own() -> None:
    store = Asked()
    known = knowing(store)
    for run_id in ("a", "b", "a"):
        plan = await known.plan(run_id, JobType.STUDENT)
        assert plan.environments[0].of({}, {}) == {"PAD": "", "OF": run_id}
        assert plan is await known.plan(run_id, JobType.STUDENT)
        assert await known.course(run_id) == f"course of {run_id}"
        assert plan.config is await known.config(run_id)
    assert not (await known.plan("a", JobType.POST_PROCESSING)).stages
    assert store.asked == ["a", "b"]


async def test_those_go_that_nobody_asked_for_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_runs, "MOST_RUNS", 2)
    store = Asked()
    known = knowing(store)
    for run_id in ("a", "b", "a", "c", "a", "b"):
        await known.config(run_id)
    assert store.asked == ["a", "b", "c", "b"]


async def test_large_configs_are_kept_in_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_runs, "MOST_BYTES", 1_000)
    store = Asked(large=2_000)
    known = knowing(store)
    small = [f"small{number}" for number in range(5)]
    for run_id in (*small, *small):
        await known.config(run_id)
    assert store.asked == small
    for run_id in ("large", "large", "small0", "small1", "small0", "large"):
        await known.config(run_id)
    assert store.asked[5:] == ["large", "small0", "small1", "large"]


async def test_who_asks_at_the_same_time_gets_the_same_and_it_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_runs, "MOST_BYTES", 1_000)
    store = Asked(a=600)
    known = knowing(store)
    plans = await asyncio.gather(*(known.plan("a", JobType.STUDENT) for _ in range(5)))
    assert all(plan is plans[0] for plan in plans)
    store.asked.clear()
    for run_id in ("b", "a"):
        await known.config(run_id)
    assert store.asked == ["b"]
