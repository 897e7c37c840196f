"""Being another user for a while, for tests that root runs."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable, Coroutine
from typing import Any

#: A user that owns nothing here.
USER = 54321


def as_user(work: Callable[[], Coroutine[Any, Any, str]]) -> str:
    """What `work` returns, or the error that it raises, in a process of the user USER."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: as it would be after an exec; else /proc/self is root's
            answer = asyncio.run(work())
        except BaseException as error:
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return answer
