"""Writes the reference in docs/cli.md from the command itself: `python3 -m scripts.cli_reference`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from broadway_client.cli.exits import Exit
from broadway_client.cli.main import broadway

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
BEGIN = "<!-- made by scripts/cli_reference.py, from here to the end -->\n"

#: Options of every command that speaks to an API, told once.
COMMON = ("--api", "--token", "--ca-certificate", "--json", "--debug", "--help")


def reference() -> str:
    """All that the page says of exit codes and commands."""
    codes = "\n".join(f"| {code.value} | {code.text} |" for code in Exit)
    parts = [f"## Exit codes\n\n| code | |\n|---|---|\n{codes}\n", "## Commands\n"]
    parts += [_section(words, command) for words, command in _commands(("broadway",), broadway)]
    return "\n".join(parts)


def page(before: str) -> str:
    """The page with its reference as it should be."""
    return before.partition(BEGIN)[0] + BEGIN + "\n" + reference()


def _commands(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    if len(words) > 1:
        yield words, command
    for name in sorted(command.commands):
        yield from _commands((*words, name), command.commands[name])


def _section(words: tuple[str, ...], command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "```shell\n")
    if "```shell" in text:
        text += "\n```"
    if isinstance(command, click.Group):
        return f"### `{' '.join(words)}`\n\n{text}\n"
    arguments = [f" {one.make_metavar(_context(command))}" for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option) and one.opts[0] not in COMMON]
    listed = "".join(f"| {_names(command, one)} | {_help(one)} |\n" for one in options)
    table = f"\n| option | |\n|---|---|\n{listed}" if listed else ""
    return f"#### `{' '.join(words)}{''.join(arguments)}`\n\n{text}\n{table}"


def _context(command: click.Command) -> click.Context:
    return click.Context(command)


def _names(command: click.Command, option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.make_metavar(_context(command))}"
    return (
        ", ".join(f"`{name}{value if name.startswith('--') else ''}`" for name in option.opts)
        .replace("INTEGER RANGE", "N")
        .replace("|", "\\|")
    )


def _help(option: click.Option) -> str:
    shown = f" Default: {option.default}." if option.show_default and option.default is not None else ""
    return f"{option.help or ''}{shown}"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
