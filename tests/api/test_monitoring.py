"""Metrics tell what happened and what is, from either store, to whoever may know; the dashboard asks for no others."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broadway_api.domain import CourseQueue
from broadway_api.errors import StoreUnavailable
from broadway_api.handlers.shared import HttpLimits
from broadway_api.measured_store import measured
from broadway_api.metrics import COURSES, OTHER_COURSES, Metrics
from broadway_api.monitoring import GOOD_FOR, Monitoring
from broadway_api.store.port import Store
from tests.api.raw import connect
from tests.api.serving import DEADLINE, SHORT_LEASE, TOKEN, Api, eventually, run_config, serving
from tests.contract.scenarios import NOW

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "broadway.json"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(api: Api, token: str | None = TOKEN) -> Samples:
    """All samples, of a store that was just asked."""
    await asyncio.sleep(GOOD_FOR)
    headers = {"Authorization": token} if token else {}
    answer = await api.http.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_metrics_tell_what_happened_and_what_is(any_api: Api) -> None:
    await any_api.data("PUT", "courses/cs1", {})
    worker = await any_api.register(slots=3)
    run_id = await any_api.create(run_config(5), params={"course": "cs1"})
    await any_api.data("POST", f"grading_run/{run_id}")
    await any_api.report(worker, await any_api.claim(worker))
    await any_api.report(worker, await any_api.claim(worker), success=False, reason="timeout")
    await any_api.report(worker, await any_api.claim(worker), success=False, reason="runtime_error")
    await any_api.data("POST", f"workers/{worker}/drain")

    found = await scrape(any_api)
    assert found[of("broadway_queue_jobs", course="cs1")] == 3
    assert 0 <= found[of("broadway_queue_oldest_seconds", course="cs1")] < 300
    assert found[of("broadway_job_outcomes_total", state="succeeded", reason="")] == 1
    assert found[of("broadway_job_outcomes_total", state="failed", reason="timeout")] == 1
    assert found[of("broadway_job_outcomes_total", state="queued", reason="runtime_error")] == 1
    assert found[of("broadway_workers", state="draining")] == 1
    assert found[of("broadway_workers", state="alive")] == 0
    assert (found[of("broadway_slots")], found[of("broadway_slots_busy")]) == (3, 0)
    assert found[of("broadway_queue_wait_seconds_count")] == 3
    assert found[of("broadway_claim_seconds_count")] == found[of("broadway_store_seconds_count", method="claim_jobs")]
    assert found[of("broadway_finish_seconds_count")] == 3
    assert found[of("broadway_store_up")] == 1

    await any_api.data("POST", f"grading_run/{run_id}/cancel")
    found = await scrape(any_api)
    assert found[of("broadway_job_outcomes_total", state="cancelled", reason="cancelled")] == 3


async def test_a_lost_worker_shows(sqlite_url: str) -> None:
    async with serving(sqlite_url, policy=SHORT_LEASE) as api:
        await api.start()
        await api.claim(await api.register())

        async def is_lost() -> bool:
            found = await scrape(api)
            return (
                found[of("broadway_leases_expired_total")] == 1
                and found[of("broadway_job_outcomes_total", state="queued", reason="worker_lost")] == 1
                and found[of("broadway_workers", state="lost")] == 1
            )

        await eventually(is_lost)


async def test_the_store_is_asked_once_a_second_however_many_ask(api: Api) -> None:
    before = api.store.calls.count("queue_by_course")
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(api.http.get("/metrics", headers={"Authorization": TOKEN}) for _ in range(50)))
    seconds = asyncio.get_running_loop().time() - began
    assert 1 <= api.store.calls.count("queue_by_course") - before <= 1 + seconds


async def test_without_its_store_a_process_still_tells_of_itself() -> None:
    async def away() -> Any:
        raise StoreUnavailable("it is away")

    metrics = Metrics()
    metrics.show_cluster({"cs1": CourseQueue.of("", 3, NOW)}, [], NOW)
    store = cast(Store, SimpleNamespace(queue_by_course=away))
    text = (await Monitoring(measured(store, metrics), metrics, away, lambda: NOW).scrape()).decode()
    assert "broadway_store_up 0.0" in text
    assert "broadway_store_faults_total 1.0" in text
    assert "broadway_queue_jobs{" not in text


@pytest.mark.parametrize("opened", [False, True])
async def test_metrics_are_the_operators_unless_they_were_opened(sqlite_url: str, opened: bool) -> None:
    async with serving(sqlite_url, limits=HttpLimits(open_metrics=opened)) as api:
        made = await api.data("POST", "tokens", {"role": "worker"})
        assert (await api.http.get("/metrics")).status_code == (200 if opened else 401)
        as_worker = await api.http.get("/metrics", headers={"Authorization": made["token"]})
        assert as_worker.status_code == (200 if opened else 403)


async def test_a_process_that_stops_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broadway_api.server.DRAIN_SECONDS", DEADLINE)
    assert (await api.http.get("/readyz")).status_code == 200
    api.store.gates["run_summary"] = asyncio.Event()
    held_up = asyncio.create_task(api.call("GET", "grading_run/" + "0" * 24))
    await api.store.until_called("run_summary")
    async with connect(api.port) as connection:  # one that a balancer keeps

        async def refused() -> bool:
            await connection.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
            return (await connection.answer()).status == 503

        assert not await refused()
        api.stop.set()
        await eventually(refused)
    api.store.gates["run_summary"].set()
    assert (await held_up).status_code == 404


def test_courses_are_bounded() -> None:
    metrics = Metrics()
    queue = {f"c{n}": CourseQueue.of("", 1 + n, NOW - timedelta(seconds=n)) for n in range(COURSES + 7)}
    metrics.show_cluster(queue, [], NOW)
    text = metrics.exposition().decode()
    assert text.count("broadway_queue_jobs{") == COURSES + 1
    assert f'broadway_queue_jobs{{course="{OTHER_COURSES}"}} {sum(range(1, 8))}.0' in text
    assert f'broadway_queue_oldest_seconds{{course="{OTHER_COURSES}"}} 6.0' in text


async def test_the_dashboard_asks_only_for_metrics_that_there_are(api: Api) -> None:
    worker = await api.register()
    await api.start(run_config(2))
    await api.report(worker, await api.claim(worker))
    text = DASHBOARD.read_text()
    asked = {
        name
        for panel in json.loads(text)["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"\b(?:broadway|process)_\w+", target["expr"])
    }
    there = {name for name, _ in await scrape(api)}
    assert asked <= there
    ours = {name for name in there if name.startswith("broadway_") and not name.endswith(("_sum", "_count"))}
    assert ours <= asked, "metrics that nobody looks at"
    # What scales graders, and the alerts and the table that operators are given.
    for page in ("deploy/kubernetes/graders.yaml", "docs/operations.md"):
        named = set(re.findall(r"(?<![/\w])broadway_(?!token\b)\w+", (ROOT / page).read_text()))
        assert named, page
        assert named <= there | {name.removesuffix("_bucket") for name in there}, page
