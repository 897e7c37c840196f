"""Every example in the client's documentation runs, against a real API."""

from __future__ import annotations

import asyncio
import doctest
from pathlib import Path
from typing import Any

import pytest

from broadway_client import async_client, client
from tests.client.serving import ROOT, TOKEN, ApiProcess, FakeWorker, failing, run_config

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture
def scene(own_api: ApiProcess) -> dict[str, Any]:
    """What examples take for granted: a run that ended with one failure, in a cluster with one worker."""
    worker = FakeWorker(own_api)
    with own_api.client() as opened:
        run_id = opened.create_run(run_config("amy", "bob")).grading_run_id
        opened.start_run(run_id)
        worker.work(failing)
        worker.close()
        failed = next(opened.jobs(run_id, "failed")).job_id
    return {
        "Client": client.Client,
        "AsyncClient": async_client.AsyncClient,
        "asyncio": asyncio,
        "api_url": own_api.url,
        "token": TOKEN,
        "ended_run": run_id,
        "failed_job": failed,
        "worker_id": worker.id,
    }


def test_examples_in_docstrings(scene: dict[str, Any], own_api: ApiProcess) -> None:
    """One namespace for each class, in the order of its methods: a later example may use what an earlier one made."""
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    attempted = 0
    for cls in (client.Client, async_client.AsyncClient):
        found = doctest.DocTestFinder(recurse=True).find(cls, globs={})
        with own_api.client() as opened:
            names = dict(scene)
            for example in sorted(found, key=lambda one: one.lineno or 0):
                names["client"] = opened  # an example may have had a client of its own
                example.globs = names
                runner.run(example, clear_globs=False)
                attempted += len(example.examples)
    assert attempted > 40
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("page", ["client.md"])
def test_examples_in_pages(page: str, scene: dict[str, Any]) -> None:
    path: Path = ROOT / "docs" / page
    result = doctest.testfile(str(path), module_relative=False, globs=scene, optionflags=OPTIONS)
    assert result.attempted > 5
    assert result.failed == 0
