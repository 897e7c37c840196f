"""What a job was told in confidence, struck out of all that is told of the job. Pure, and slow for megabytes.

A job's secrets are struck out of the output of all its stages: `/job` may carry a value from one to the next. Beside
the value itself go its lines (a key in PEM is printed with other ends of line, or in part), and the forms that programs
give it without wanting to hide it: base64, as JSON text, in a URL. This protects from accidents; a stage that wants to
give its secret away can.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, AnyStr
from urllib.parse import quote

from broadway_grader.domain import Job, JobResult, Output, StageResult

MASK = "***"

#: Characters of a line, or of another form, that are struck out by themselves; shorter ones are in any text.
_SHORTEST = 4
_SHORTEST_ENCODED = 8


class Mask:
    """Strikes some values out of texts."""

    def __init__(self, values: Iterable[str]) -> None:
        self._patterns = tuple(dict.fromkeys(pattern for value in values if value for pattern in _forms(value)))
        self._encoded = tuple(pattern.encode(errors="replace") for pattern in self._patterns)

    @classmethod
    def of(cls, job: Job) -> Mask:
        """For all that a job was told in confidence."""
        return cls(stage.env[name] for stage in job.stages for name in stage.secrets if name in stage.env)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def text(self, text: str, *, truncated: bool = False) -> str:
        """The text without any of the values; if it was truncated, also without the beginning of one at its end."""
        spans = sorted(span for pattern in self._patterns for span in _spans(text, pattern))
        if truncated:
            spans += self._cut_off(text)
        parts, at = [], 0
        for begin, end in _merged(spans):
            parts += [text[at:begin], MASK]
            at = end
        return "".join([*parts, text[at:]])

    def beginning(self, data: bytes, limit: int) -> tuple[int, bytes]:
        """As much of the beginning of a growing output as whatever comes next does not change, masked.

        Of UTF-8, and at most `limit` bytes; how many those are, and what `text` will make of them.
        """
        spans = _merged(span for pattern in self._encoded for span in _spans(data, pattern))
        for pattern in self._encoded:  # one may have begun, also before a character that is cut
            limit = min(limit, _begun(data, pattern, len(data)), _begun(data, pattern, limit))
        limit = min([limit, *(begin for begin, end in spans if begin < limit < end)])
        parts, at = [], 0
        for begin, end in spans:
            if end <= limit:
                parts += [data[at:begin], MASK.encode()]
                at = end
        return limit, b"".join([*parts, data[at:limit]])

    def value(self, value: Any) -> Any:
        """A JSON value with all its texts masked, the names of members too."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {self.text(str(name)): self.value(inner) for name, inner in value.items()}
            case Sequence():
                return [self.value(inner) for inner in value]
            case _:
                return value

    def result(self, result: JobResult) -> JobResult:
        """A job's result with nothing in it of what the job was told in confidence."""
        return replace(result, stages=[self._stage(stage) for stage in result.stages])

    def _stage(self, stage: StageResult) -> StageResult:
        return replace(
            stage,
            message=None if stage.message is None else self.text(stage.message),
            stdout=self._output(stage.stdout),
            stderr=self._output(stage.stderr),
            results=self.value(stage.results),
            results_errors=self.value(stage.results_errors),
        )

    def _output(self, output: Output) -> Output:
        return replace(output, text=self.text(output.text, truncated=output.truncated))

    def _cut_off(self, text: str) -> list[tuple[int, int]]:
        """Where the longest beginning of a value stands at the end; the last character may itself be cut."""
        end = text.rstrip("\N{REPLACEMENT CHARACTER}")
        lengths = (
            length
            for pattern in self._patterns
            for length in range(min(len(pattern) - 1, len(end)), 0, -1)
            if end.endswith(pattern[:length])
        )
        longest = max(lengths, default=0)
        return [(len(end) - longest, len(text))] if longest else []


def _forms(value: str) -> Iterator[str]:
    yield value
    for line in value.splitlines():
        if len(line.strip()) >= _SHORTEST:
            yield line.strip()
    others = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(value, safe="")]
    others += _base64(value.encode(errors="surrogateescape"))
    yield from (form for form in others if len(form) >= _SHORTEST_ENCODED)


def _base64(value: bytes) -> Iterator[str]:
    """What any base64 of a text around the value has in common: the value may begin at each of three places."""
    for offset in range(3):
        first = -(-offset * 8 // 6)  # characters that also depend on what stands before
        last = (offset + len(value)) * 8 // 6  # and before those that depend on what comes after
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * offset + value).decode()[first:last]


def _begun(data: bytes, pattern: bytes, end: int) -> int:
    """Where before `end` the pattern begins which may go on beyond it; `end` if it does not."""
    at = data.find(pattern[:1], max(0, end - len(pattern) + 1), end)
    while at >= 0 and not pattern.startswith(data[at:end]):
        at = data.find(pattern[:1], at + 1, end)
    return end if at < 0 else at


def _spans(text: AnyStr, pattern: AnyStr) -> Iterator[tuple[int, int]]:
    at = text.find(pattern)
    while at >= 0:
        yield at, at + len(pattern)
        at = text.find(pattern, at + 1)  # also where the value overlaps itself


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
