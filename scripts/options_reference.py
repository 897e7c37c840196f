"""Prints `docs/options.md`: every option of both programs, out of `config.py`.

python -m scripts.options_reference > docs/options.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from config import ApiConfig, GraderConfig, Options, environment_name, flag_name

_HEAD = """# Options

Every option of the two programs, made of [`config.py`](../config.py) by `python -m scripts.options_reference`. A flag
wins over the environment, the environment over the default. Switches are turned off by `--no-…`, in the environment by
`false`.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_section("api.py", ApiConfig), *_section("grader.py", GraderConfig)])


def _section(program: str, kind: type[Options]) -> Iterator[str]:
    yield f"## {program}\n"
    yield f"{(kind.__doc__ or '').splitlines()[0]}\n"
    yield "| flag | environment | default | |\n|---|---|---|---|"
    yield from map(_row, dataclasses.fields(kind))
    yield ""


def _row(field: dataclasses.Field[Any]) -> str:
    flag = flag_name(field)
    shown = f"`{flag}`" if flag.startswith("-") else "the first argument"
    default = "" if field.default == "" else f"`{str(field.default).lower()}`"
    text = " ".join(field.metadata["help"].split()).replace("|", "\\|").replace("<", "&lt;")
    if choices := field.metadata["choices"]:
        text += f" ({', '.join(f'`{choice}`' for choice in choices)})"
    return f"| {shown} | `{environment_name(field.name)}` | {default} | {text} |"


if __name__ == "__main__":
    print(reference(), end="")
