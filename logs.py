"""Logging of the two programs: stderr and a rotating file, written by a thread of their own.

A disk or a terminal that is slow must not hold up the event loop, so what is logged only goes to a queue there.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

#: Rotated files that are kept, one a day.
KEPT_FILES = 7
# These tell of every request, or of every packet, at a level at which we tell of every job.
_TALKATIVE = ("httpx", "httpcore", "urllib3", "docker", "asyncio", "pymongo")


class Logging:
    """Logging that has been started; `close` writes what is still in the queue and ends it. Also a context manager."""

    def __init__(self, handler: logging.Handler, listener: logging.handlers.QueueListener) -> None:
        self._handler = handler
        self._listener: logging.handlers.QueueListener | None = listener

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left and close the file; once closed, closing again does nothing."""
        if self._listener is None:
            return
        logging.getLogger().removeHandler(self._handler)
        self._listener.stop()
        for handler in self._listener.handlers:
            handler.close()
        self._listener = None


def start_logging(level: str, directory: Path, program: str) -> Logging:
    """Log messages of `level` (a name such as "info") and above to stderr and to `<directory>/<program>.log`.

    The file is rotated at midnight UTC and 7 old ones are kept. Times are UTC. Raises OSError if the file cannot be
    written.
    """
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    directory.mkdir(parents=True, exist_ok=True)
    file = logging.handlers.TimedRotatingFileHandler(
        directory / f"{program}.log", when="midnight", backupCount=KEPT_FILES, encoding="utf-8", utc=True
    )
    terminal = logging.StreamHandler(sys.stderr)
    for handler in (file, terminal):
        handler.setFormatter(formatter)
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    queued = logging.handlers.QueueHandler(records)
    listener = logging.handlers.QueueListener(records, file, terminal)
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    root.addHandler(queued)
    listener.start()
    return Logging(queued, listener)
