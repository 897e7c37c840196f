"""The operator's tokens: given by an option, or the lines of a file that is read again whenever it changes."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Self

from broadway_api.tenants import digest

logger = logging.getLogger(__name__)

_VISIBLE = re.compile(r"[!-~]+")


class TokenFileFault(Exception):
    """A token file that cannot be used, and why, in one line that shows nothing of what it holds."""


class ClusterTokens:
    """The tokens that open everything; several may, so that one can be replaced while the other still works.

    Only digests are kept.
    """

    def __init__(self, digests: frozenset[str], path: Path | None = None) -> None:
        self.digests = digests
        self._path = path
        self._seen = None if path is None else _look(path)

    @classmethod
    def given(cls, *tokens: str) -> Self:
        """These tokens, for good."""
        return cls(frozenset(map(digest, tokens)))

    @classmethod
    def kept_in(cls, path: Path) -> Self:
        """The tokens in a file: one a line, but for empty lines and remarks after `#`. Raises TokenFileFault."""
        return cls(_read(path), path)

    def follow(self) -> None:
        """Read the file again if it has changed since it was last looked at; a fault leaves the tokens as they are."""
        if self._path is not None and _look(self._path) != self._seen:
            self.reload()

    def reload(self) -> None:
        """Read the file again; a fault is logged, and leaves the tokens as they are."""
        if self._path is None:
            return
        self._seen = _look(self._path)
        try:
            digests = _read(self._path)
        except TokenFileFault as fault:
            logger.error("%s; the tokens stay as they were", fault)  # noqa: TRY400  # the line says it all
            return
        if digests != self.digests:
            logger.info("%s holds %d cluster tokens now", self._path, len(digests))
        self.digests = digests


def _look(path: Path) -> tuple[int, ...] | None:
    """What tells two contents of a file apart without reading them; None if it cannot be looked at."""
    try:
        found = os.stat(path)  # noqa: PTH116  # the fields are what is wanted
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> frozenset[str]:
    try:
        lines = path.read_text(errors="surrogateescape").splitlines()
    except OSError as error:
        raise TokenFileFault(f"{path} cannot be read: {error.strerror}") from None
    tokens = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            tokens[number] = text
            if not _VISIBLE.fullmatch(text):
                problem = "the cluster token must be visible ASCII characters, without spaces"
                raise TokenFileFault(f"{path}: line {number}: {problem}")
    if not tokens:
        raise TokenFileFault(f"{path} is empty; remove it, or write a token into it")
    return frozenset(map(digest, tokens.values()))
