"""`broadway run report`: why those failed that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from broadway_client.async_client import AsyncClient
from broadway_client.cli.names import job_name, plural
from broadway_client.cli.output import Output, one_line
from broadway_client.models import Cause, Failures, FoundJob, JobType, RunStatus

#: Students of a cause that are named.
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Report:
    """A run, why its jobs failed, and of each cause that is shown the first who did."""

    status: RunStatus
    failures: Failures
    named: Sequence[tuple[Cause, Sequence[FoundJob]]]


async def make(client: AsyncClient, run_id: str, *, top: int) -> Report:
    """The report on a run, with those who failed of its `top` causes."""

    async def who(cause: Cause) -> Sequence[FoundJob]:
        found = await client.find_jobs(
            run_id, states=["failed"], reason=cause.reason.value, cause=cause.cause, limit=_NAMED
        )
        return found.jobs

    status = await client.run(run_id)
    failures = await client.failures(run_id)
    causes = failures.causes[:top]
    named = zip(causes, await asyncio.gather(*map(who, causes)), strict=True)
    return Report(status=status, failures=failures, named=list(named))


def show(output: Output, report: Report) -> None:
    """Print it for people."""
    status, failures = report.status, report.failures
    words: list[str | Text] = [f"run {status.grading_run_id} ", Text(status.state.value, style="bold"), ": "]
    cancelled = status.counts.get("cancelled", 0)
    more = f", {cancelled} were cancelled" if cancelled else ""
    if not failures.failed:
        output.line(*words, f"no job failed{more}")
        return
    told = sum(cause.jobs for cause in failures.causes)
    which = "" if told == failures.failed else f" of {told} of them, others are rarer"
    count = plural(len(failures.causes), "cause")
    output.line(*words, f"{failures.failed} of {status.total} jobs failed{more}; {count}{which}")
    for cause, jobs in report.named:
        output.line()
        _cause(output, cause, jobs)
    rest = len(failures.causes) - len(report.named)
    if rest:
        output.line()
        output.line(f"… and {plural(rest, 'cause')} more: --top {len(failures.causes)}")


def _cause(output: Output, cause: Cause, jobs: Sequence[FoundJob]) -> None:
    kind = "" if cause.example.type == JobType.STUDENT else f" of the {job_name(cause.example)} job"
    output.line(Text(f"{cause.jobs:5}  ", style="bold"), Text(cause.reason.value, style="red"), kind)
    if cause.example.said:
        by = "such as: " if cause.jobs > 1 and cause.example.said != cause.cause else ""
        output.line("       ", Text(by, style="dim"), Text(one_line(cause.example.said), style="bold"))
    names = ", ".join(one_line(job_name(job), 40) for job in jobs)
    rest = cause.jobs - len(jobs)
    output.line("       ", names, f" and {rest} more" if rest > 0 else "")
    output.line(Text(f"       broadway job log {cause.example.job_id}", style="dim"))


def to_json(report: Report) -> dict[str, Any]:
    """The same for programs, with all causes that the API tells apart."""
    return {
        "grading_run_id": report.status.grading_run_id,
        "state": report.status.state.value,
        **report.failures.raw,
    }
