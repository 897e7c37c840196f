"""What the live screen of a run says is true at the moment at which it stands there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from broadway_client.cli import logs, watch
from broadway_client.cli.exits import Exit
from broadway_client.cli.main import main
from broadway_client.cli.processes import free_port
from broadway_client.cli.watch import View, screen
from broadway_client.errors import Unreachable
from broadway_client.events import Interruption
from broadway_client.models import RunState, RunStatus, Stranded, Worker, WorkerState

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
RUN = RunStatus(
    grading_run_id="697dd0a80a1b2c3d4e5f6011",
    course="cs241",
    state=RunState.STUDENTS,
    success=None,
    created_at=NOON,
    started_at=NOON,
    finished_at=None,
    counts={"queued": 32, "running": 4, "succeeded": 3, "failed": 1},
    reasons={"stage_failed": 1},
    eta_seconds=60,
    pre_processing_job=None,
    post_processing_job=None,
)
WORKER = Worker(
    worker_id="697dd0a80a1b2c3d4e5f6012",
    hostname="eniac",
    slots=4,
    runtime="docker",
    version="1",
    labels={},
    state=WorkerState.ALIVE,
    quarantined_until=None,
    registered_at=NOON,
    last_seen=NOON,
    running=("1", "2", "3"),
    jobs_processed=0,
)


def shown(view: View, now: float) -> str:
    console = Console(width=150)
    with console.capture() as capture:
        console.print(screen(view, now))
    return capture.get()


def watched() -> View:
    """At 10 s of a clock one job had ended, at 30 s four."""
    view = View(workers=[WORKER])
    view.saw(replace(RUN, counts={**RUN.counts, "succeeded": 0}), 10)
    view.saw(RUN, 30)
    return view


def test_the_time_left_is_that_of_jobs_at_the_rate_that_is_shown() -> None:
    view = watched()
    assert "9.0 jobs a minute, about 4 min left" in shown(view, 30)
    view.saw(replace(RUN, stranded=(Stranded(require=(), jobs=32, message="no worker is connected"),)), 31)
    text = shown(view, 31)
    assert "8.6 jobs a minute\n" in text
    assert "32 jobs cannot run: no worker is connected" in text


def test_until_there_is_a_rate_the_time_left_is_the_apis_and_passes() -> None:
    view = View()
    view.saw(RUN, 30)
    assert "\nabout 60 s left" in shown(view, 30)
    assert "\nabout 40 s left" in shown(view, 50)
    assert "left" not in shown(view, 91)


def test_an_api_that_is_away_leaves_what_was_true_when_it_went() -> None:
    view = watched()
    for seconds in (0, 30):
        away = Interruption(error=Unreachable("http://broadway", "refused", sent=False), pause=1.0)
        view.lost(away, NOON + timedelta(seconds=seconds))
    text = shown(view, 60)
    assert "as of 12:00:00\nthe API is away, trying again: no answer from http://broadway: refused" in text
    assert "4 of 40" in text
    assert not any(word in text for word in ("jobs a minute", "left", "slots"))
    view.saw(RUN, 61)
    text = shown(view, 61)
    assert "away" not in text
    assert "1 worker, 3 of 4 slots busy" in text


def test_workers_that_take_no_jobs_are_called_what_they_are() -> None:
    view = watched()
    lost, quarantined = (replace(WORKER, state=state) for state in (WorkerState.LOST, WorkerState.QUARANTINED))
    view.workers = [lost, quarantined, lost]
    assert "0 workers, 2 lost, 1 quarantined\n" in shown(view, 30)
    view.workers = [WORKER, lost]
    assert "1 worker, 3 of 4 slots busy, 1 lost\n" in shown(view, 30)


def test_an_api_that_stays_away_is_given_up_with_the_way_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 0.2)
    monkeypatch.setattr(logs, "PATIENCE", 0.2)
    words = ("--api", f"http://127.0.0.1:{free_port()}", "--token", "t")
    for command in (["run", "watch", RUN.grading_run_id], ["job", "log", "--follow", RUN.grading_run_id]):
        assert main([*command, *words]) == Exit.AWAY
        told = capsys.readouterr().err
        assert f"to come back once there is an API: broadway {' '.join(command)}" in told
        assert "connection refused" in told.lower()
