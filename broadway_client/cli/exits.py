"""What the command exits with; the documentation's table is made of this."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """One exit code; its text is its documentation."""

    text: str

    def __new__(cls, code: int, text: str) -> Exit:
        member = int.__new__(cls, code)
        member._value_ = code
        member.text = text
        return member

    OK = 0, "done; of a run that was watched: it has finished"
    NOT_WELL = 1, "the answer is a bad one: the watched run failed or was cancelled, the checked config has faults"
    USAGE = 2, "the command line, a setting or a file cannot be used; nothing was sent"
    REFUSED = 3, "the API refused the request, and said why"
    AWAY = 4, "the API could not be reached, or cannot answer now"
    UNAUTHORIZED = 5, "the token was refused, or may not do this"
    INTERRUPTED = 130, "Ctrl-C; a run that was watched goes on"
