"""What the two programs log: text for people, or objects with the ids that messages name."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from logs import JsonFormatter, start_logging

logger = logging.getLogger("broadway_api.tests")


def entry(message: str, *arguments: Any, exc_info: Any = None) -> dict[str, Any]:
    record = logging.LogRecord("broadway_api.fleet", logging.INFO, "", 0, message, arguments, exc_info)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return dict(json.loads(line))


def test_ids_are_fields_and_the_message_stays_as_it_was() -> None:
    found = entry("job %s of run %s by worker %s: %s %s", "j1", "r1", "w1", "failed", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "info",
        "logger": "broadway_api.fleet",
        "message": "job j1 of run r1 by worker w1: failed None",
        "job_id": "j1",
        "run_id": "r1",
        "worker_id": "w1",
    }


@pytest.mark.parametrize(
    ("message", "arguments", "fields"),
    [
        ("job %s attempt %d begins, %d stages", ("j", 3, 2), {"job_id": "j", "attempt": 3}),
        ("100 %% of worker %s, %.1f s", ("w", 1.5), {"worker_id": "w"}),
        ("%s: again, %-5s job %s", ("job x", "worker y", "j"), {"job_id": "j"}),
        ("run over", (), {}),
        ("%s", ("run r2",), {}),  # what an argument says is nobody's id
    ],
)
def test_only_what_stands_behind_its_word_is_a_field(
    message: str, arguments: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    assert {name: value for name, value in entry(message, *arguments).items() if name in fields or "_id" in name} == (
        fields
    )


def test_a_line_stays_one_line_whatever_is_in_it() -> None:
    error = ValueError('two\nlines, a "quote"')
    found = entry("worker %s: %s", 'w"\n{"level": "error"}', error, exc_info=(ValueError, error, None))
    assert found["level"] == "info"
    assert found["worker_id"] == 'w"\n{"level": "error"}'
    assert "ValueError" in found["exception"]


@pytest.mark.parametrize("style", ["text", "json"])
def test_both_styles_reach_file_and_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str], style: str) -> None:
    with start_logging("info", tmp_path, "api", style):
        logger.debug("run %s is not told of", "r0")
        logger.info("run %s started: %s", "r1", "students")
        logger.error("the %s died", "sweeper", exc_info=RuntimeError("unforeseen"))
    text = (tmp_path / "api.log").read_text()
    assert capfd.readouterr().err == text
    assert "r0" not in text
    if style == "text":
        assert "Z INFO broadway_api.tests: run r1 started: students\n" in text
        assert text.endswith("RuntimeError: unforeseen\n")
    else:
        first, second = (json.loads(line) for line in text.splitlines())
        assert (first["run_id"], first["message"]) == ("r1", "run r1 started: students")
        assert second["exception"].endswith("RuntimeError: unforeseen")
