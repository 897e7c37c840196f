"""docs/cli.md says what the command does."""

from __future__ import annotations

import os
import subprocess

import click
import pytest

from broadway_client.cli.main import broadway
from scripts.cli_reference import PAGE, page
from tests.client.commands import COMMAND
from tests.client.serving import ROOT


def test_the_reference_is_that_of_the_command() -> None:
    assert PAGE.read_text() == page(PAGE.read_text()), "run: python3 -m scripts.cli_reference"


def test_every_command_and_option_has_its_help() -> None:
    def walk(command: click.Command) -> list[str]:
        missing = [] if command.help else [str(command.name)]
        missing += [
            f"{command.name} {one.name}" for one in command.params if isinstance(one, click.Option) and not one.help
        ]
        inner = command.commands.values() if isinstance(command, click.Group) else ()
        return missing + [name for one in inner for name in walk(one)]

    assert walk(broadway) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str) -> None:
    env = dict(os.environ) | {"PYTHONPATH": str(ROOT), "_BROADWAY_COMPLETE": f"{shell}_complete"}
    env |= {
        "COMP_WORDS": "broadway run re",
        "COMP_CWORD": "2" if shell != "fish" else "re",
    }
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert all(name in done.stdout for name in ("report", "results", "retry")), done
