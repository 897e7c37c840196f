"""The command's entry, and the one place where what goes wrong becomes a line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from broadway_client import errors
from broadway_client.cli import configs, fleet, jobs, programs, runs, tenants
from broadway_client.cli.exits import Exit
from broadway_client.cli.output import visible
from broadway_client.version import __version__


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="docs/cli.md has all of this, exit codes and shell completion.",
)
@click.version_option(__version__, message="broadway %(version)s")
def broadway() -> None:
    """Grade a class: submit runs, see what became of them, steer the fleet.

    To begin: `broadway dev` here, and in another terminal `broadway config init` and
    `broadway run submit grading_run.jsonc --watch`.
    """


broadway.add_command(programs.dev)
broadway.add_command(programs.api)
broadway.add_command(programs.grader)
broadway.add_command(runs.run)
broadway.add_command(jobs.job)
broadway.add_command(fleet.worker)
broadway.add_command(tenants.course)
broadway.add_command(tenants.token)
broadway.add_command(tenants.secret)
broadway.add_command(configs.config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = broadway.main(words, prog_name="broadway", standalone_mode=False)
        sys.stdout.flush()
        return int(result or 0)
    except (click.ClickException, click.Abort, errors.ClientError, KeyboardInterrupt, BrokenPipeError) as fault:
        if "--debug" in words and not isinstance(fault, click.Abort | KeyboardInterrupt):
            raise
        return _told(fault)


def _told(fault: BaseException) -> Exit:
    """Say on stderr what went wrong; the exit code for it."""
    match fault:
        case BrokenPipeError():  # `broadway … | head`: who reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.OK
        case click.Abort() | KeyboardInterrupt():
            return Exit.INTERRUPTED
        case click.ClickException():
            fault.show(sys.stderr)
            return Exit.USAGE
        case errors.InvalidSettings():
            return _say(Exit.USAGE, str(fault))
        case errors.Unauthorized() | errors.Forbidden():
            return _say(Exit.UNAUTHORIZED, f"the token was refused: {fault}")
        case errors.InvalidRequest():
            listed = [f"  {one.path}: {one.message}" for one in fault.faults]
            rest = [f"  and {fault.more} more"] if fault.more else []
            head = str(fault).partition(f": {fault.faults[0].path}: ")[0] if listed else str(fault)
            return _say(Exit.REFUSED, "\n".join([head, *listed, *rest]))
        case errors.Unavailable() | errors.Unreachable() | errors.NotBroadway():
            return _say(Exit.AWAY, str(fault))
        case _:
            return _say(Exit.REFUSED, str(fault))


def _say(code: Exit, text: str) -> Exit:
    click.echo(f"broadway: {visible(text)}", err=True)
    return code
