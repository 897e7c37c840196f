"""`broadway job`: one job, and what it printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click
from rich.text import Text

from broadway_client.cli import logs
from broadway_client.cli.names import duration, job_id, job_name, local_time, number, plural
from broadway_client.cli.output import STYLES, Output
from broadway_client.cli.session import Session, connected
from broadway_client.client import Client
from broadway_client.errors import Unavailable, Unreachable
from broadway_client.models import JobDetail

_JOB = click.argument("job_", metavar="JOB")


@click.group()
def job() -> None:
    """Look at one job. JOB is a job's id, or a run and a student: `latest/amy`."""


@job.command()
@_JOB
@connected
def show(session: Session, job_: str) -> None:
    """Show all about a job but its output: stages, exit codes, limits, attempts, results."""
    with session.client() as client:
        found = client.job(job_id(client, job_))
    if session.output.as_json:
        session.output.json(found.raw)
    else:
        _show(session.output, found)


def _show(output: Output, found: JobDetail) -> None:
    state = found.state.value
    output.line(f"job {found.job_id} of {job_name(found)}: ", Text(state, style=STYLES.get(state, "bold")))
    facts = {
        "reason": found.reason or "",
        "score": "" if found.score is None else f"{number(found.score)} of {number(found.max_score) or '?'}",
        "run": found.grading_run_id,
        "worker": found.worker_hostname or "",
        "attempt": found.attempt or "",
        "queued": local_time(found.queued_at),
        "started": local_time(found.started_at),
        "ended": local_time(found.finished_at),
        "took": duration(found.seconds),
        "before it": "" if found.position is None else f"{found.position} jobs in the queue",
        "cannot run": found.stranded or "",
    }
    for name, value in facts.items():
        if value != "":
            output.line(f"  {name:11}{value}")
    for index, stage in enumerate(found.pipeline):
        info = found.info[index] if index < len(found.info) else None
        output.line(f"  stage {index}    {stage.get('image')}: ", _stage(info))
        for line in _used(info or {}):
            output.line(f"             {line}")
    for attempt in found.attempts:
        output.line(f"  attempt {attempt.attempt}  {attempt.reason} on {attempt.hostname or attempt.worker_id}")
    for test in (found.results or {}).get("tests", ()):
        mark = f"{number(test.get('score'))} of {number(test.get('max_score')) or '?'}"
        output.line(f"  test       {mark}  {test.get('name', '')}")
    if state == "failed":
        output.line(f"  what it printed: broadway job log {found.job_id}")


def _used(info: Mapping[str, Any]) -> Iterator[str]:
    """What is worth telling of a stage beside how it ended."""
    if info.get("message"):
        yield str(info["message"])
    used = []
    if info.get("memory_peak_bytes"):
        used.append(f"{info['memory_peak_bytes'] / 2**20:.1f} MiB of memory at most")
    if info.get("cpu_seconds") is not None:
        used.append(f"{info['cpu_seconds']:.2f} s of CPU time")
    if used:
        yield ", ".join(used)
    if info.get("image_ignored"):
        yield "in a sandbox, without its image"
    elif info.get("image_digest"):
        yield str(info["image_digest"])


def _stage(info: Mapping[str, object] | None) -> Text:
    if info is None:
        return Text("did not run", style="dim")
    words = [] if info.get("exit_code") is None else [f"exit code {info['exit_code']}"]
    words += [str(info["reason"])] if info.get("reason") else []
    truncated = info.get("truncated")
    cut = [name for name, is_cut in truncated.items() if is_cut] if isinstance(truncated, Mapping) else []
    words += [f"{' and '.join(cut)} cut off"] if cut else []
    return Text(", ".join(words), style="red" if info.get("reason") or info.get("exit_code") else "green")


@job.command()
@_JOB
@click.option("--stage", type=click.IntRange(0), help="Only this stage; they count from 0.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option("--stream", type=click.Choice(logs.STREAMS), help="Only this.")
@connected
def log(session: Session, job_: str, stage: int | None, follow: bool, stream: str | None) -> None:
    """Print what a job printed.

    Its standard output goes to stdout, its standard error to stderr. On a terminal, what a terminal would obey
    (escape sequences, say) is shown and not obeyed, and standard error is red; piped, it is what the job wrote. With
    --follow what is printed now, a second later; and with --json each event on a line.
    """
    with session.client() as client:
        found = job_id(client, job_)
        if follow:
            _follow(session, client, found, stage, stream)
        elif session.output.as_json:
            session.output.json(client.job_log(found, stage).raw)
        elif not logs.show(session.output, client.job_log(found, stage), stream):
            asked = _with_stage(client, found, stage)
            session.output.aside(f"job {found} has printed nothing; it is {asked.state.value}", style="dim")


def _with_stage(client: Client, found: str, stage: int | None) -> JobDetail:
    """The job; a usage error if it has no such stage."""
    asked = client.job(found)
    if stage is not None and stage >= len(asked.pipeline):
        raise click.UsageError(f"job {found} has {plural(len(asked.pipeline), 'stage')}; they count from 0")
    return asked


def _follow(session: Session, client: Client, found: str, stage: int | None, stream: str | None) -> None:
    if stage is not None:
        _with_stage(client, found, stage)
    try:
        logs.follow(session.output, client, found, stage, stream)
    except KeyboardInterrupt:
        session.output.aside(f"\nthe job goes on; to come back: broadway job log --follow {found}")
        raise
    except (Unreachable, Unavailable):
        session.output.aside(f"to come back once there is an API: broadway job log --follow {found}")
        raise
