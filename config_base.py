"""Config classes that read themselves: each field is an option of a program, by a flag and by the environment."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self, get_type_hints

ENVIRONMENT_PREFIX = "BROADWAY_"
#: What the user typed where another command (`broadway grader`) has become the program: no option, but what is blamed.
INVOKED_AS = ENVIRONMENT_PREFIX + "INVOKED_AS"


def option(
    default: Any, text: str, *, choices: Sequence[str] = (), flag: str | None = None, repeatable: bool = False
) -> Any:
    """One option: its default, its help, the values it may have and its flag (made from its name if not given).

    A repeatable one has commas between the values of its flags.
    """
    metadata = {"help": text, "choices": tuple(choices), "flag": flag, "repeatable": repeatable}
    return dataclasses.field(default=default, metadata=metadata)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without the usage of thirty options before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a program, and how they are read."""

    @classmethod
    def program(cls) -> str:
        """What the user knows the program by, for messages."""
        return os.environ.get(INVOKED_AS) or f"{cls.__name__.removesuffix('Config').lower()}.py"

    @classmethod
    def parser(cls) -> argparse.ArgumentParser:
        """The command line of this config class; the help of each option names its environment variable."""
        parser = _Parser(
            prog=cls.program(),
            description=(cls.__doc__ or "").splitlines()[0],
            formatter_class=argparse.RawTextHelpFormatter,
            allow_abbrev=False,  # an abbreviation means something else once there is another option
        )
        for field in dataclasses.fields(cls):
            cls._add_argument(parser, field)
        return parser

    @classmethod
    def _add_argument(cls, parser: argparse.ArgumentParser, field: dataclasses.Field[Any]) -> None:
        shown = "" if field.default in ("", None) else f", default {field.default}"
        text = f"{field.metadata['help']}\n[{environment_name(field.name)}{shown}]"
        # %: argparse formats its help texts.
        settings: dict[str, Any] = {"dest": field.name, "default": None, "help": text.replace("%", "%%")}
        if field.metadata["repeatable"]:
            parser.add_argument(flag_name(field), metavar=field.name.upper(), action="append", **settings)
        elif get_type_hints(cls)[field.name] is bool:
            parser.add_argument(flag_name(field), action=argparse.BooleanOptionalAction, **settings)
        elif flag_name(field).startswith("-"):
            parser.add_argument(flag_name(field), metavar=field.name.upper(), **settings)
        else:  # positional, and optional since the environment may give it
            parser.add_argument(flag_name(field), nargs="?", default=None, help=settings["help"])

    @classmethod
    def load(cls, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Self:
        """Read the options from `arguments` (without the program's name) and the environment.

        Ends the process with status 2 and one clear line where a value cannot be used, as argparse does.
        """
        environment = os.environ if environment is None else environment
        parser = cls.parser()
        known, unknown = parser.parse_known_args(arguments)
        if unknown:  # the flags only: what stands beside a misspelt --token is secret
            flags = ", ".join(word.partition("=")[0] for word in unknown if word.startswith("-"))
            parser.error(f"unknown option {flags}" if flags else "there is no such argument")
        given = vars(known)
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            source, value = flag_name(field) or field.name, given[field.name]
            if isinstance(value, list):
                value = ",".join(value)
            if value is None and environment.get(environment_name(field.name), "") != "":
                source, value = environment_name(field.name), environment[environment_name(field.name)]
            if value is not None:
                try:
                    values[field.name] = _convert(value, hints[field.name], field.metadata["choices"])
                except ValueError as error:
                    parser.error(f"{source}: {error}")
        try:
            config = cls(**values)
            config.check()
        except ValueError as error:
            parser.error(str(error))
        return config

    def check(self) -> None:
        """Raise ValueError where options contradict one another."""


def environment_name(field_name: str) -> str:
    """The environment variable of an option."""
    return ENVIRONMENT_PREFIX + field_name.upper()


def flag_name(field: dataclasses.Field[Any]) -> str:
    """The flag of an option; a name without dashes is a positional argument."""
    return str(field.metadata["flag"] or "--" + field.name.replace("_", "-"))


def _convert(value: Any, kind: type, choices: Sequence[str]) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if value.lower() not in words:
            raise ValueError(f"{value!r} is neither true nor false")
        return words[value.lower()]
    if kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"{value[:40]!r} is not a number") from None
    if choices and value not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    return value


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Raise ValueError if the value of an option is out of its range."""
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least} and {most}, not {value}")
