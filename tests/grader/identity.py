"""Being another user for a while, for tests that root runs."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

#: A user that owns nothing here.
USER = 54321


def as_user(work: Callable[[], str | None], user: int = USER) -> str:
    """What `work` returns, or the error that it raises, in a process of that user; empty if it returns nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: as it would be after an exec; else /proc/self is root's
            answer = work() or ""
        except BaseException as error:
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return answer
