"""What people and programs read. All text of others goes through here, so that no terminal obeys it."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

#: Whatever a terminal acts upon, or that makes text read as other than it is: C0 but tab and line feed, DEL, C1, the
#: marks that turn the direction of writing, line separators, invisible tags, halves of surrogate pairs.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)

#: Colours of states and of what says how well something went.
STYLES = {
    "succeeded": "green",
    "finished": "green",
    "alive": "green",
    "valid": "green",
    "failed": "red",
    "lost": "red",
    "revoked": "red",
    "cancelled": "yellow",
    "quarantined": "yellow",
    "draining": "yellow",
    "expired": "yellow",
    "running": "cyan",
}


def visible(text: str) -> str:
    """The text with what a terminal would obey shown instead: ESC as `\\x1b`. Line feeds and tabs stay."""
    return _OBEYED.sub(_shown, text.replace("\r\n", "\n"))


def one_line(text: str, longest: int = 200) -> str:
    """The text on one line, cut after `longest` characters."""
    flat = " ".join(visible(text[: 4 * longest]).split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Output:
    """stdout for answers, stderr for everything said beside them. `as_json`: answers are JSON, for programs."""

    def __init__(self, *, as_json: bool, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> None:
        self.as_json = as_json
        self._stdout = stdout or sys.stdout
        # Piped text is cut to no width and coloured only if FORCE_COLOR says so.
        self.console = Console(file=self._stdout, highlight=False, emoji=False, soft_wrap=True)
        #: For what is drawn over itself: lines that are too long are folded.
        self.screen = Console(file=self._stdout, highlight=False, emoji=False)
        self._aside = Console(file=stderr or sys.stderr, highlight=False, emoji=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at the answers."""
        return self.console.is_terminal

    def line(self, *parts: str | Text) -> None:
        """One line of an answer; a `Text` keeps its colours."""
        self.console.print(*(_safe(part) for part in parts), sep="")

    def aside(self, text: str, style: str = "") -> None:
        """A line to the person, beside the answer."""
        self._aside.print(Text(visible(text), style=style))

    def json(self, value: Any) -> None:
        """One JSON value, on one line where it is piped."""
        indent = 2 if self.is_terminal else None
        # Nothing but ASCII reaches a terminal: what it would obey is escaped by JSON itself.
        self._stdout.write(json.dumps(value, indent=indent, ensure_ascii=self.is_terminal) + "\n")
        self._stdout.flush()

    def raw(self, text: str, style: str = "") -> None:
        """Text of others: to a terminal what it would obey is shown, elsewhere it is as it is."""
        if not self.is_terminal:
            self._stdout.write(text.encode(errors="replace").decode())
        elif style:
            self.console.print(Text(visible(text), style=style), end="")
        else:
            self._stdout.write(visible(text))
        self._stdout.flush()

    def table(
        self,
        names: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        right: Iterable[str] = (),
        dispensable: Sequence[str] = (),
    ) -> None:
        """A table on a terminal, else its rows with tabs in between, so that `cut` and `awk` can read them.

        Columns that are `dispensable` are left out of a terminal that is too narrow, the first of them first.
        """
        if not self.is_terminal:
            for row in [names, *rows]:
                self._stdout.write("\t".join(one_line(str(cell), 1_000) for cell in row) + "\n")
            self._stdout.flush()
            return
        shown, kept = list(rows), list(names)
        unbounded = self.console.options.update(max_width=10_000)
        for name in dispensable:
            width = self.console.measure(table(kept, shown, right=right), options=unbounded).maximum
            if width <= self.console.width:
                break
            index = kept.index(name)
            kept.pop(index)
            shown = [[*row[:index], *row[index + 1 :]] for row in shown]
        self.console.print(table(kept, shown, right=right))

    def csv(self, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Comma-separated values (RFC 4180)."""
        writer = csv.writer(self._stdout)
        writer.writerow(names)
        writer.writerows([_cell(value) for value in row] for row in rows)
        self._stdout.flush()


def table(names: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> RenderableType:
    """A table without lines around it."""
    columns = [Column(name, justify="right" if name in right else "left", overflow="fold") for name in names]
    shown = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        cells = [one_line(str(cell), 1_000) for cell in row]
        shown.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    return shown


def _safe(part: str | Text) -> Text:
    if isinstance(part, str):
        return Text(visible(part))
    return Text(visible(part.plain), style=part.style)


def _cell(value: object) -> object:
    # A spreadsheet takes what begins like this for a formula, and a roster may have text of students in it.
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
