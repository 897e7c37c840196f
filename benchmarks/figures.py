"""A figure with what it is held against, and the command line that every benchmark has."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One measurement: the median of its repetitions, as a ratio wherever a machine's speed would show."""

    what: str
    value: float
    unit: str = "×"
    at_least: float | None = None  # the floor, where more is better
    at_most: float | None = None  # the ceiling, where less is better
    aim: float | None = None  # what would be better still
    note: str = ""  # the absolute figures behind a ratio

    @property
    def passed(self) -> bool | None:
        """Whether it keeps its bounds; None if it has none."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


#: Measures something; `quick`: in seconds, with fewer repetitions.
Benchmark = Callable[[bool], Coroutine[Any, Any, list[Figure]]]


def main(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark as a command: `--quick`, and `--json FILE` for what is to be read by programs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    given = parser.parse_args(arguments)
    figures = asyncio.run(benchmark(given.quick))
    print(table(figures), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


def read(file: Path) -> list[Figure]:
    """What `--json` wrote."""
    values: list[dict[str, Any]] = json.loads(file.read_text())
    return [Figure(**value) for value in values]


def table(figures: Sequence[Figure]) -> str:
    """Figures as a Markdown table."""
    rows: list[tuple[str, ...]] = [("what", "measured", "bound", "aim", "", "of that")]
    for figure in figures:
        bound = f"≥ {figure.at_least:g}" if figure.at_least is not None else ""
        bound += f"≤ {figure.at_most:g}" if figure.at_most is not None else ""
        aim = "" if figure.aim is None else f"{figure.aim:g}"
        verdict = {True: "pass", False: "FAIL", None: ""}[figure.passed]
        rows.append((figure.what, f"{figure.value:.3g} {figure.unit}", bound, aim, verdict, figure.note))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )
