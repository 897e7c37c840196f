"""Fixtures of the attacks."""

from __future__ import annotations

import pytest

from broadway_grader.runtimes import RUNTIMES


@pytest.fixture(params=list(RUNTIMES))
def runtime(request: pytest.FixtureRequest) -> str:
    """The name of each runtime in turn."""
    return str(request.param)
