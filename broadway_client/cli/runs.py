"""`broadway run`: runs from their config to their scores."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.text import Text

from broadway_client.cli import configs, report, watch
from broadway_client.cli.exits import Exit
from broadway_client.cli.names import duration, job_name, local_time, number, plural, run_id, student_name
from broadway_client.cli.output import STYLES, Output
from broadway_client.cli.session import Session, connected
from broadway_client.errors import InvalidRequest, Unavailable, Unreachable
from broadway_client.models import Job, JobState, RunState, RunStatus

T = TypeVar("T")

_RUN = click.argument("run_", metavar="RUN")


@click.group()
def run() -> None:
    """Submit runs, follow them, see what became of them. RUN is a run's id, or `latest`."""


@run.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--watch", "-w", "follow", is_flag=True, help="Follow it to its end.")
@click.option("--no-start", is_flag=True, help="Store it only; `broadway run start` starts it.")
@click.option("--course", metavar="COURSE", help="The run's course; operators only.")
@click.option("--priority", type=click.IntRange(-10, 10), help="How soon its jobs are handed out; operators only.")
@connected
def submit(
    session: Session, file: Path, follow: bool, no_start: bool, course: str | None, priority: int | None
) -> None:
    """Create and start a run of the config in FILE (JSON, with comments if you like), or of stdin for `-`.

    \b
    broadway run submit grading_run.jsonc --watch
    """
    text = configs.read(file)
    with session.client() as client:
        try:
            created = client.create_run(text, course=course, priority=priority)
        except InvalidRequest as fault:
            # The API says what and which value; only we know where in the file that stands.
            told = "\n".join(
                f"{file}:{one['line']}:{one['column']}: {one['message']}"
                + ("" if one["path"] == "$" else f"\n  {one['path']}")
                for one in configs.faults(text, fault)
            )
            raise InvalidRequest(fault.status, told or str(fault)) from fault
        found = created.grading_run_id
        state = RunState.READY if no_start else client.start_run(found).state
    output = session.output
    if follow and not no_start:
        output.aside(f"run {found}")
        _watch(session, found)
    elif output.as_json:
        output.json({"grading_run_id": found, "state": state.value})
    elif output.is_terminal:
        output.line("run ", Text(found, style="bold"), " is stored" if no_start else " has started")
        output.line(f"  broadway run {'start' if no_start else 'watch'} {found}")
    else:
        output.line(found)


@run.command()
@_RUN
@connected
def start(session: Session, run_: str) -> None:
    """Start a run that is stored."""
    with session.client() as client:
        moved = client.start_run(run_id(client, run_))
    _say(session.output, f"run {moved.grading_run_id} has started", moved.raw or {"state": moved.state.value})


@run.command(name="list")
@click.option("--state", type=click.Choice([state.value for state in RunState]), help="Only runs in this state.")
@click.option("--course", metavar="COURSE", help="Only this course's runs.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="The newest so many.")
@connected
def list_(session: Session, state: str | None, course: str | None, limit: int) -> None:
    """List runs, the newest first."""
    with session.client() as client:
        found = [one for one, _ in zip(client.runs(state=state, course=course), range(limit), strict=False)]
    if session.output.as_json:
        session.output.json([one.raw for one in found])
        return
    rows = [
        (
            one.grading_run_id,
            one.course,
            one.state.value,
            local_time(one.created_at),
            duration((one.finished_at - one.started_at).total_seconds())
            if one.started_at is not None and one.finished_at is not None
            else "",
        )
        for one in found
    ]
    session.output.table(("run", "course", "state", "created", "took"), rows)


@run.command()
@_RUN
@connected
def status(session: Session, run_: str) -> None:
    """Show how far a run is: its state, counts, reasons and time left."""
    with session.client() as client:
        found = client.run(run_id(client, run_))
    if session.output.as_json:
        session.output.json(found.raw)
    else:
        show_status(session.output, found)


def show_status(output: Output, found: RunStatus) -> None:
    """A run in some lines."""
    state = found.state.value
    output.line(f"run {found.grading_run_id} of course {found.course}: ", Text(state, style=STYLES.get(state, "bold")))
    for what, time in (("created", found.created_at), ("started", found.started_at), ("ended", found.finished_at)):
        if time is not None:
            output.line(f"  {what:9}{local_time(time)}")
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items() if count)
    output.line(f"  {plural(found.total, 'job')}   {counts}")
    if found.reasons:
        output.line("  reasons  ", ", ".join(f"{count} {name}" for name, count in found.reasons.items()))
    for one in found.stranded:
        output.line(Text(f"  {plural(one.jobs, 'job')} cannot run: {one.message}", style="yellow"))
    if found.eta_seconds is not None:
        output.line(f"  about {duration(found.eta_seconds)} left")
    if found.counts.get("failed"):
        output.line(f"  why: broadway run report {found.grading_run_id}")


@run.command(name="watch")
@_RUN
@connected
def watch_(session: Session, run_: str) -> None:
    """Follow a run to its end; Ctrl-C leaves it running.

    Survives restarts of the API. Exits with 1 if the run failed or was cancelled. With --json, one line a change.
    """
    with session.client() as client:
        found = run_id(client, run_)
    _watch(session, found)


async def _until_interrupted(work: Coroutine[Any, Any, T]) -> T:
    """What comes of the work, or KeyboardInterrupt.

    asyncio cancels once at Ctrl-C, and before Python 3.12 a wait that ends at that very moment loses it.
    """
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    task, waiting = asyncio.create_task(work), asyncio.create_task(interrupted.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    while interrupted.is_set() and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)
    if task.cancelled():
        raise KeyboardInterrupt
    return task.result()


def _watch(session: Session, found: str) -> None:
    try:
        end = asyncio.run(_until_interrupted(watch.watch(session, found)))
    except KeyboardInterrupt:
        session.output.aside(f"\nthe run goes on; to come back: broadway run watch {found}")
        raise
    except (Unreachable, Unavailable):
        session.output.aside(f"to come back once there is an API: broadway run watch {found}")
        raise
    if end.state is not RunState.FINISHED:
        raise click.exceptions.Exit(Exit.NOT_WELL)


@run.command()
@_RUN
@connected
def cancel(session: Session, run_: str) -> None:
    """End a run now, whatever it is doing."""
    with session.client() as client:
        moved = client.cancel_run(run_id(client, run_))
    _say(session.output, f"run {moved.grading_run_id} is {moved.state.value}", moved.raw)


@run.command()
@_RUN
@click.option("--student", "students", metavar="NAME", multiple=True, help="This student, however it went; repeatable.")
@connected
def retry(session: Session, run_: str, students: tuple[str, ...]) -> None:
    """Try again the jobs of an ended run that failed or were cancelled, or those of the students named."""
    with session.client() as client:
        found = run_id(client, run_)
        entries = None
        if students:
            jobs = [job for job in client.jobs(found) if job.student is not None]
            entries = [job.student for job in jobs if job.student and student_name(job.student) in students]
            missing = set(students) - {student_name(entry) for entry in entries}
            if missing:
                raise click.UsageError(f"grading run {found} has no student {', '.join(sorted(missing))}")
        retried = client.retry_run(found, entries)
    text = "its jobs tried again" if retried.jobs is None else f"{plural(retried.jobs, 'job')} tried again"
    _say(session.output, f"run {found} goes on, with {text}", retried.raw or {"grading_run_id": found})


@run.command()
@_RUN
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values, for spreadsheets.")
@click.option(
    "--state",
    type=click.Choice(["all", "unfinished", *(one.value for one in JobState)]),
    default="all",
    help="Only these jobs.",
)
@connected
def results(session: Session, run_: str, as_csv: bool, state: str) -> None:
    """List what became of each student: state, reason, score.

    \b
    broadway run results latest --csv > grades.csv
    """
    with session.client() as client:
        jobs = list(client.jobs(run_id(client, run_), state))
    output = session.output
    if output.as_json:
        output.json([job.raw for job in jobs])
    elif as_csv:
        names = ("student", "state", "reason", "score", "max_score", "seconds", "attempt", "finished_at", "job_id")
        output.csv((*names, "roster_entry"), [_record(job) for job in jobs if job.student is not None])
    else:
        rows = [
            (
                job_name(job),
                job.state.value,
                job.reason or "",
                number(job.score),
                number(job.max_score),
                duration(job.seconds),
                job.job_id,
            )
            for job in jobs
        ]
        shown = ("student", "state", "reason", "score", "of", "took", "job")
        output.table(shown, rows, right=("score", "of", "took"), dispensable=("job", "took"))


def _record(job: Job) -> tuple[object, ...]:
    return (
        student_name(job.student),
        job.state.value,
        job.reason.value if job.reason else "",
        "" if job.score is None else job.score,
        "" if job.max_score is None else job.max_score,
        "" if job.seconds is None else job.seconds,
        job.attempt,
        job.finished_at.isoformat() if job.finished_at else "",
        job.job_id,
        json.dumps(dict(job.student or {}), ensure_ascii=False),
    )


@run.command()
@_RUN
@connected
def deliveries(session: Session, run_: str) -> None:
    """Show whether the cluster's webhook has heard of a run's end, and if not, why."""
    with session.client() as client:
        found = client.deliveries(run_id(client, run_))
    output = session.output
    if output.as_json:
        output.json([one.raw for one in found])
        return
    if not found:
        output.aside(
            "nothing to tell: it has not ended, ended more than seven days ago, or the API has no --webhook-url"
        )
    rows = [
        (
            one.delivery_id,
            one.state.value,
            one.attempts,
            local_time(one.created_at),
            local_time(one.heard_at or one.next_attempt_at),
            "" if one.heard_at else one.fault or "",
        )
        for one in found
    ]
    names = ("delivery", "state", "attempts", "ended", "heard, or next attempt", "fault")
    output.table(names, rows, dispensable=("delivery", "attempts"))


@run.command(name="report")
@_RUN
@click.option("--top", type=click.IntRange(1), default=12, show_default=True, help="Show so many causes.")
@connected
def report_(session: Session, run_: str, top: int) -> None:
    """Say why jobs failed: failures that say the same are shown as one cause.

    \b
    broadway run report latest
    """
    with session.client() as client:
        found = run_id(client, run_)

    async def make() -> None:
        async with session.async_client() as client:
            made = await report.make(client, found, top=top)
        if session.output.as_json:
            session.output.json(report.to_json(made))
        else:
            report.show(session.output, made)

    asyncio.run(make())


def _say(output: Output, text: str, raw: object) -> None:
    if output.as_json:
        output.json(raw)
    else:
        output.line(text)
