"""What a stop answers in place of a method that is still at work."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from broadway_api.handlers.courses import RunHandler
from broadway_api.supervision import end_all
from tests.api.serving import run_config, serving


async def test_a_method_that_comes_round_after_its_request_was_refused_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, came_round = asyncio.Event(), asyncio.Event()
    get = RunHandler.get

    async def getting(handler: RunHandler, run_id: str) -> None:
        try:
            await get(handler, run_id)
        finally:
            came_round.set()

    async def ending(tasks: Collection[asyncio.Task[None]]) -> None:
        held.set()
        await asyncio.wait_for(came_round.wait(), 20)  # while the store is still open
        await end_all(tasks)

    monkeypatch.setattr(RunHandler, "get", getting)
    monkeypatch.setattr("broadway_api.server.end_all", ending)
    monkeypatch.setattr("broadway_api.server.DRAIN_SECONDS", 0.1)
    async with serving(f"sqlite:///{tmp_path}/broadway.db") as api:
        run_id = await api.start(run_config(1))
        api.store.gates["run_summary"] = held
        asked = asyncio.create_task(api.call("GET", f"grading_run/{run_id}"))
        await api.store.until_called("run_summary")

        api.stop.set()
        answer = await asked
        assert answer.status_code == 503
        assert "stopping" in answer.json()["message"]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
