"""`broadway config`: run configs, without an API."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import click
from rich.text import Text

from broadway_client.cli import jsonc, offline
from broadway_client.cli.exits import Exit
from broadway_client.cli.names import student_name
from broadway_client.cli.output import Output
from broadway_client.cli.session import spoken
from broadway_client.errors import InvalidRequest

STARTER = "grading_run.jsonc"


@click.group()
def config() -> None:
    """Write and check run configs; needs no API."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path), default=STARTER)
@spoken
def init(output: Output, file: Path) -> None:
    """Write a commented config to begin with into FILE.

    \b
    broadway config init
    broadway config init hw1.jsonc
    """
    text = resources.files("broadway_client.cli").joinpath("starter.jsonc").read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text.replace(STARTER, file.name))
    except FileExistsError:
        raise click.UsageError(f"{file} is there already; name another file") from None
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None
    if output.as_json:
        output.json({"file": str(file)})
        return
    output.line(f"{file} is written: change it, then")
    output.line(f"  broadway config check {file}")
    output.line(f"  broadway run submit {file} --watch")


@config.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--student", metavar="NAME", help="Show what this student's stages get.")
@click.option("--all", "everybody", is_flag=True, help="Show what every student's stages get.")
@spoken
def check(output: Output, file: Path, student: str | None, everybody: bool) -> None:
    """Say what is wrong with a config, and where; else what env each student's stages would get.

    By the API's own schemas and rules, with the limits that it has by default. FILE is JSON, with comments if you like,
    or `-` for stdin. Exits with 1 if the config has faults.

    \b
    broadway config check grading_run.jsonc
    broadway config check grading_run.jsonc --student amy
    """
    text = read(file)
    try:
        plan = offline.plan(text)
    except InvalidRequest as fault:
        told = faults(text, fault)
        if output.as_json:
            output.json({"valid": False, "errors": told, "more_errors": fault.more})
        else:
            for one in told:
                output.line(Text(f"{file}:{one['line']}:{one['column']}: ", style="bold"), f"{one['message']}")
                if one["path"] != "$":
                    output.line(Text(f"  {one['path']}", style="dim"))
            if fault.more:
                output.line(f"and {fault.more} more")
        raise click.exceptions.Exit(Exit.NOT_WELL) from None
    _show(output, file, plan, student, everybody)


def _show(output: Output, file: Path, plan: offline.Plan, student: str | None, everybody: bool) -> None:
    jobs = plan.jobs if student is None else plan.of(student)
    if not jobs:
        raise click.UsageError(f"{file} has no student {student!r}")
    shown = jobs if everybody or student or output.as_json else plan.first()
    planned = [plan.planned(job) for job in shown]
    if output.as_json:
        told = [
            {
                "type": job.type,
                "student": job.student,
                "stages": [{"image": stage.image, "env": stage.env} for stage in job.stages],
            }
            for job in planned
        ]
        output.json({"valid": True, "students": plan.students, "jobs": told})
        return
    output.line(Text("valid", style="green"), f": {plan.students} students, {plan.stages('student')} stages each")
    for job in planned:
        output.line()
        output.line(Text(student_name(job.student) or job.type.replace("_", "-"), style="bold"))
        for stage in job.stages:
            output.line(f"  stage {stage.stage} in {stage.image}")
            for name in sorted(stage.env):
                output.line(Text(f"    {name}=", style="dim"), stage.env[name])
    if len(shown) < len(jobs):
        output.line()
        output.line(f"… and {len(jobs) - len(shown)} jobs more: --all, or --student NAME")


def read(file: Path) -> str:
    """The config in a file as plain JSON, each value where it was. Raises UsageError."""
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None
    try:
        return jsonc.to_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file}: not UTF-8: {error.reason} (byte {error.start})") from None


def faults(text: str, fault: InvalidRequest) -> list[dict[str, object]]:
    """What is wrong with a config, each with line, column, path and message."""
    if fault.line is not None:
        return [{"line": fault.line, "column": fault.column or 1, "path": "$", "message": str(fault)}]
    found = jsonc.places(text)
    told: list[dict[str, object]] = []
    for one in fault.faults:
        line, column = jsonc.place_of(one.path, found) or (1, 1)
        told.append({"line": line, "column": column, "path": one.path, "message": one.message})
    return told
