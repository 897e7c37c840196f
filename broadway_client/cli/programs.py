"""`broadway api`, `broadway grader` and `broadway dev`: the two programs, and both at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from broadway_client.cli.dev import Development, DevelopmentFault
from broadway_client.cli.exits import Exit
from broadway_client.cli.output import Output
from config_base import INVOKED_AS

#: Where `api.py` and `grader.py` are: beside our package, in a checkout as in an installation.
PROGRAMS = Path(__file__).parents[2]

_AS_THEY_ARE = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


@click.command(context_settings=_AS_THEY_ARE)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def api(options: tuple[str, ...]) -> None:
    """Run the API; `broadway api --help` lists its options."""
    _become("api", options)


@click.command(context_settings=_AS_THEY_ARE)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def grader(options: tuple[str, ...]) -> None:
    """Run a grader; `broadway grader --help` lists its options."""
    _become("grader", options)


def _become(name: str, options: tuple[str, ...]) -> None:
    """Replace this process: signals, exit code and process id are the program's own, its messages name our command."""
    sys.stdout.flush()
    command = [sys.executable, str(PROGRAMS / f"{name}.py"), *options]
    os.execve(sys.executable, command, os.environ | {INVOKED_AS: f"broadway {name}"})  # noqa: S606


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=1470,
    show_default=True,
    envvar="BROADWAY_PORT",
    help="Of the API; 0 takes a free one.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    help="Where runs, the token and the logs are kept.",
)
@click.option(
    "--runtime",
    type=click.Choice(["auto", "docker", "sandbox"]),
    default="auto",
    show_default=True,
    envvar="BROADWAY_RUNTIME",
    help="What runs the stages; auto: docker if an engine answers and can have the first config's image, else sandbox.",
)
@click.option("--slots", type=click.IntRange(0, 1024), default=0, help="Jobs at once.  [the number of CPUs]")
def dev(port: int, data_dir: Path, runtime: str, slots: int) -> None:
    """Run an API and a grader in this terminal; Ctrl-C stops both.

    Everything is kept in --data-dir, also for the next time. Commands that are given in the same directory find the
    token there by themselves. Options that are not here are taken from the environment: BROADWAY_…, see `broadway api
    --help`. The grader tests itself only if BROADWAY_SELF_TEST_AT_START says so.
    """
    output = Output(as_json=False)
    development = Development(
        programs=PROGRAMS, port=port, data_dir=data_dir, runtime=runtime, slots=slots, output=output
    )
    try:
        development.run()
    except DevelopmentFault as fault:
        output.aside(f"broadway: {fault}")
        raise click.exceptions.Exit(Exit.NOT_WELL) from None
