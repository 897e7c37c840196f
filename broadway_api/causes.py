"""Why jobs failed, so that three hundred failures show as four causes: the one rule by which they are told apart.

The cause of a failure is one line: what the stage that failed said last that looks like an error, or what its grader
says of it, without all that differs from student to student. It is found once, when the result comes, and stored with
the job and that very line; failures of one reason and one cause are one cluster. Pure; nothing here may take long,
whatever was printed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from broadway_api.domain import Env, Reason, StageLog

#: Characters that a cause has at most.
LONGEST = 200

#: Characters at the end of each output that are looked at, and of a line.
_TAIL = 16_384
_LINE = 1_000

#: Terminal escapes: colours and cursors (CSI), titles and links (OSC), and others of two characters.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")

#: Words of lines that say what went wrong, of the languages and tools that courses use.
_ERROR = re.compile(
    r"error|exception|fail|fatal|assert|panic|abort|denied|not found|no such|cannot|can't|undefined|invalid|expected"
    r"|segmentation|traceback|killed|overflow|refused|missing|unable",
    re.IGNORECASE,
)

#: Lines that only say that an earlier one did, or sum up.
_ECHO = re.compile(
    r"^(?:g?make(?:\[\d+\])?: |traceback \(most recent|\s*at [\w.$<>]+\(|[=\-_~^ ]{3,}$|\s*\^)", re.IGNORECASE
)

#: What differs from one student to the next, and what stands in its place; in this order.
_VARYING = (
    (re.compile(r"(?<!\w)(?:'[^']*'|\"[^\"]*\"|`[^`']*[`']|‘[^’]*’|“[^”]*”)(?!\w)"), "'…'"),
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<address>"),
    (re.compile(r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{12,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"(?<![\w<])/tmp/[\w.+-]+"), "/tmp/<name>"),  # noqa: S108  # what stands for them
    (re.compile(r"(?:(?<![\w<])[-+])?\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?", re.IGNORECASE), "#"),
)


def told_by(
    reason: Reason, info: Sequence[Mapping[str, Any]], logs: Sequence[StageLog], student: Env | None = None
) -> tuple[str, str]:
    """What was said of a failure, in one line, and its cause, which is that line's kind; empty if nothing was said."""
    stage = _failed_stage(info)
    failed = {} if stage is None else info[stage]
    message, code = failed.get("message"), failed.get("exit_code")
    said = message if isinstance(message, str) else ""
    # Where a limit was reached, the fleet is to blame or a stage that ended well left no valid results, what it printed
    # is not why.
    if reason is Reason.STAGE_FAILED and (code or not said):
        printed = next((log for log in logs if log.stage == stage), None)
        said = (printed and (_telling_line(printed.stderr) or _telling_line(printed.stdout))) or said
        if not said and isinstance(code, int):
            return (line := f"exit code {code}"), line  # the number is all that tells it from others
    return _short(_plain(said[:_LINE])), normalised(said, student)


def normalised(line: str, student: Env | None = None) -> str:
    """A line without escapes, numbers, addresses, ids, temporary names and values of the student's roster entry."""
    text = _plain(line[:_LINE])
    for name, value in (student or {}).items():
        if isinstance(value, str) and len(value) >= 3 and not value.startswith("$"):
            text = text.replace(value, f"<{name}>")
    for pattern, placeholder in _VARYING:
        text = pattern.sub(placeholder, text)
    return _short(text)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _failed_stage(info: Sequence[Mapping[str, Any]]) -> int | None:
    """The stage that has a reason or failed, the last one if several have; else the last that ran."""
    failed = [number for number, stage in enumerate(info) if stage.get("reason") or stage.get("exit_code")]
    return failed[-1] if failed else len(info) - 1 if info else None


def _telling_line(output: str) -> str:
    """The last line that looks like an error, or else the last that says anything."""
    lines = [line for line in map(_plain, filter(str.strip, output[-_TAIL:].split("\n"))) if line.strip()]
    telling = (line for line in reversed(lines) if _ERROR.search(line[:_LINE]) and not _ECHO.match(line[:_LINE]))
    return next(telling, lines[-1] if lines else "")


def _plain(line: str) -> str:
    return _CONTROL.sub("", _ESCAPE.sub("", line))
