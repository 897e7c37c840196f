"""Why jobs failed, so that three hundred failures show as four causes: the one rule by which they are told apart.

The cause of a failure is one line: what the stage that failed said last that looks like an error, or what its grader
says of it, without all that differs from student to student. It is found once, when the result comes, and stored with
the job; failures of one reason and one cause are one cluster. Pure; nothing here may take long, whatever was printed.
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
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<address>"),
    (re.compile(r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{12,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"(?<![\w<])/tmp/[\w.+-]+"), "/tmp/<name>"),  # noqa: S108  # what stands for them
    (re.compile(r"\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?", re.IGNORECASE), "#"),
)


def cause_of(
    reason: Reason, info: Sequence[Mapping[str, Any]], logs: Sequence[StageLog], student: Env | None = None
) -> str:
    """The cause of a failure; empty if nothing was said."""
    stage = _failed_stage(info)
    message = info[stage].get("message") if stage is not None else None
    own = message if isinstance(message, str) else ""
    if reason is Reason.STAGE_FAILED:
        printed = next((log for log in logs if log.stage == stage), None)
        said = (printed and (_telling_line(printed.stderr) or _telling_line(printed.stdout))) or own
    else:  # a limit was reached or the fleet is to blame: what the student's code printed is not why
        said = own
    return normalised(said, student)


def normalised(line: str, student: Env | None = None) -> str:
    """A line without escapes, numbers, addresses, ids, temporary names and values of the student's roster entry."""
    text = _plain(line[:_LINE])
    for name, value in (student or {}).items():
        if isinstance(value, str) and len(value) >= 3 and not value.startswith("$"):
            text = text.replace(value, f"<{name}>")
    for pattern, placeholder in _VARYING:
        text = pattern.sub(placeholder, text)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _failed_stage(info: Sequence[Mapping[str, Any]]) -> int | None:
    """The stage that has a reason or failed, the last one if several have; else the last that ran."""
    failed = [number for number, stage in enumerate(info) if stage.get("reason") or stage.get("exit_code")]
    return failed[-1] if failed else len(info) - 1 if info else None


def _telling_line(output: str) -> str:
    """The last line that looks like an error, or else the last that says anything."""
    lines = [line for line in map(_plain, output[-_TAIL:].split("\n")) if line.strip()]
    telling = (line for line in reversed(lines) if _ERROR.search(line[:_LINE]) and not _ECHO.match(line[:_LINE]))
    return next(telling, lines[-1] if lines else "")


def _plain(line: str) -> str:
    return _CONTROL.sub("", _ESCAPE.sub("", line))
