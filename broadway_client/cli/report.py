"""`broadway run report`: why those failed that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from broadway_client.async_client import AsyncClient
from broadway_client.cli.causes import Cause, Failure, causes, failure
from broadway_client.cli.names import job_name, plural
from broadway_client.cli.output import Output, one_line
from broadway_client.models import Job, RunStatus

#: Requests at a time.
_AT_ONCE = 8
#: Students of a cause that are named.
_NAMED = 5


async def read(client: AsyncClient, jobs: Sequence[Job]) -> list[Failure]:
    """What is known of each of these failures."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(job: Job) -> Failure:
        async with turns:
            detail = await client.job(job.job_id)
            log = await client.job_log(job.job_id, len(detail.info) - 1) if detail.info else None
            return failure(detail, log)

    return list(await asyncio.gather(*(one(job) for job in jobs)))


async def make(client: AsyncClient, run_id: str, *, limit: int) -> tuple[RunStatus, int, list[Cause]]:
    """The run, how many of its jobs failed, and why; no more than `limit` of them are looked at."""
    status = await client.run(run_id)
    failed = [job async for job in client.jobs(run_id, "failed")]
    return status, len(failed), causes(await read(client, failed[:limit]))


def show(output: Output, status: RunStatus, failed: int, found: Sequence[Cause], *, top: int) -> None:
    """Print it for people."""
    looked_at = sum(len(cause.failures) for cause in found)
    words: list[str | Text] = [f"run {status.grading_run_id} ", Text(status.state.value, style="bold"), ": "]
    cancelled = status.counts.get("cancelled", 0)
    more = f", {cancelled} were cancelled" if cancelled else ""
    if not failed:
        output.line(*words, f"no job failed{more}")
        return
    which = "" if looked_at == failed else f" (of the first {looked_at})"
    output.line(*words, f"{failed} of {status.total} jobs failed{more}; {plural(len(found), 'cause')}{which}")
    for cause in found[:top]:
        output.line()
        _cause(output, cause)
    if len(found) > top:
        output.line()
        output.line(f"… and {plural(len(found) - top, 'cause')} more: --top {len(found)}")


def _cause(output: Output, cause: Cause) -> None:
    example = cause.example
    where = "" if example.stage is None else f" in stage {example.stage} ({example.image})"
    code = "" if example.exit_code is None else f", exit code {example.exit_code}"
    kind = "" if example.job.student is not None else f" of the {job_name(example.job)} job"
    count = Text(f"{len(cause.failures):5}  ", style="bold")
    output.line(count, Text(example.reason, style="red"), f"{kind}{where}{code}")
    if example.said:
        by = "" if len(cause.failures) == 1 or cause.pattern == example.said else "such as: "
        output.line("       ", Text(by, style="dim"), Text(one_line(example.said), style="bold"))
    names = ", ".join(one_line(job_name(one.job), 40) for one in cause.failures[:_NAMED])
    rest = len(cause.failures) - _NAMED
    output.line("       ", names, f" and {rest} more" if rest > 0 else "")
    output.line(Text(f"       broadway job log {example.job.job_id}", style="dim"))


def to_json(status: RunStatus, failed: int, found: Sequence[Cause]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "grading_run_id": status.grading_run_id,
        "state": status.state.value,
        "failed": failed,
        "causes": [
            {
                "count": len(cause.failures),
                "reason": cause.example.reason,
                "stage": cause.example.stage,
                "image": cause.example.image,
                "exit_code": cause.example.exit_code,
                "pattern": cause.pattern,
                "example": cause.example.said,
                "jobs": [{"job_id": one.job.job_id, "student": one.job.student} for one in cause.failures],
            }
            for cause in found
        ],
    }
