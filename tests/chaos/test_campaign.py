"""Two minutes of faults with everybody's `make test`; `make chaos MINUTES=30` for longer."""

from __future__ import annotations

import pytest

from tests.chaos.campaign import Settings, run, stopwatch


@pytest.mark.timeout(600)  # the faults take a minute, settling on a busy machine may take two
@pytest.mark.parametrize(("store", "seed"), [("sqlite", 1), ("mongo", 2)])
async def test_nothing_is_lost_or_graded_twice_whatever_dies(store: str, seed: int) -> None:
    report = await run(Settings(seed=seed, seconds=62, store=store), stopwatch(lambda text: print(text, flush=True)))  # noqa: T201
    print(report)  # noqa: T201 - shown when it fails
    assert report.problems == []
    assert report.kills >= 20  # of about 50 that are planned: what is down already cannot be killed
