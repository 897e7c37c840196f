"""JSON with comments, and where each value stands in the text. Pure.

Comments (`// …`, `/* … */`) and the comma after a last element become spaces, so every line and column stays what it
was.
"""

from __future__ import annotations

import json
import re

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|[{}\[\],:]|\s+|[^\s{}\[\],:"/]+|.', re.DOTALL)
_COLON = re.compile(r"\s*:")


def to_json(text: str) -> str:
    """The text as plain JSON, if it is that at all but for comments; each value stays where it was."""
    words = [match[0] for match in _TOKEN.finditer(text)]
    before, last = -1, -1  # the last two words that are neither blank nor comment
    for index, word in enumerate(words):
        if word.startswith(("//", "/*")):
            words[index] = re.sub(r"[^\n]", " ", word)
        elif not word.isspace():
            if word in ("}", "]") and words[last] == "," and words[before] not in ("{", "[", ","):
                words[last] = " "
            before, last = last, index
    return "".join(words)


def places(text: str) -> dict[str, tuple[int, int]]:
    """Line and column, from 1, of each value of a JSON text by its JSONPath: `$.students[0].NET_ID`."""
    found: dict[str, tuple[int, int]] = {}
    path: list[str | int] = []  # the name or index that is at hand in each object or array around
    line, line_start = 1, 0
    for match in _TOKEN.finditer(text):
        word, start = match[0], match.start()
        at = path[-1] if path else None
        if word.isspace():
            if newlines := word.count("\n"):
                line, line_start = line + newlines, start + word.rfind("\n") + 1
        elif word == ",":
            if isinstance(at, int):
                path[-1] = at + 1
        elif word in ("}", "]"):
            del path[-1:]
        elif word.startswith('"') and isinstance(at, str) and _COLON.match(text, match.end()):
            path[-1] = _text(word)
        elif word != ":":
            found.setdefault(_shown(path), (line, start - line_start + 1))
            if word in ("{", "["):
                path.append("" if word == "{" else 0)
    return found


def place_of(path: str, found: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """Where the value of `path` stands, or the closest one around it that is there."""
    while path not in found:
        end = max(path.rfind("."), path.rfind("["))
        if end < 0:
            return None
        path = path[:end]
    return found[path]


def _text(word: str) -> str:
    try:
        return str(json.loads(word))
    except ValueError:
        return word


def _shown(path: list[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
