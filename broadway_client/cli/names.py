"""How people name things: students by their roster entry, runs and jobs by less than an id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from broadway_client.client import Client
from broadway_client.models import Job

#: Names of roster entries that say who a student is, the likeliest first.
_WHO = ("NET_ID", "NETID", "STUDENT_ID", "STUDENT", "USERNAME", "USER", "LOGIN", "EMAIL", "ID", "NAME")

_ID = re.compile(r"[0-9a-f]{24}")


def student_name(student: Mapping[str, Any] | None) -> str:
    """What a student is called: by the first telling name of its entry, else by the entry's first value."""
    if not student:
        return ""
    upper = {name.upper(): value for name, value in student.items()}
    return str(next((upper[name] for name in _WHO if name in upper), next(iter(student.values()))))


def job_name(job: Job) -> str:
    """Whose job it is."""
    return student_name(job.student) if job.student is not None else job.type.value.replace("_", "-")


def run_id(client: Client, text: str) -> str:
    """The run that `text` names: an id, or `latest`. Raises UsageError."""
    if text == "latest":
        page = client.run_page(limit=1)
        if not page.grading_runs:
            raise click.UsageError("there is no run yet")
        return page.grading_runs[0].grading_run_id
    if not _ID.fullmatch(text):
        raise click.UsageError(f"{text!r} is no run: give its id (24 hexadecimal digits), or `latest`")
    return text


def job_id(client: Client, text: str) -> str:
    """The job that `text` names: an id, or a run and a student: `latest/amy`. Raises UsageError."""
    if _ID.fullmatch(text):
        return text
    run, slash, who = text.partition("/")
    if not slash:
        raise click.UsageError(f"{text!r} is no job: give its id, or a run and a student such as latest/amy")
    found = run_id(client, run)
    matches = [job for job in client.jobs(found) if who == job_name(job)]
    if not matches:
        raise click.UsageError(f"grading run {found} has no job of {who!r}; see `broadway run results {found}`")
    if len(matches) > 1:
        raise click.UsageError(f"grading run {found} has {len(matches)} jobs of {who!r}; give one's id")
    return matches[0].job_id


def local_time(time: datetime | None) -> str:
    """A time on this machine's clock, for people."""
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str:
    """So many seconds, as people say it; fewer than ten with a tenth, unless they are whole."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 and isinstance(seconds, float) else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def plural(count: int, what: str) -> str:
    """So many of something: `1 job`, `2 jobs`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def number(value: float | None) -> str:
    """A score without needless digits."""
    return "" if value is None else f"{value:.10g}"
