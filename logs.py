"""Logging of the two programs: stderr and a rotating file, written by a thread of their own.

A disk or a terminal that is slow must not hold up the event loop, so what is logged only goes to a queue there.

Our messages name what they are about before its id: `job %s of run %s`. So a line of JSON can have the ids as fields,
and nobody has to give them twice.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import re
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: Rotated files that are kept, one a day.
KEPT_FILES = 7
# These tell of every request, or of every packet, at a level at which we tell of every job.
_TALKATIVE = ("httpx", "httpcore", "urllib3", "docker", "asyncio", "pymongo")
#: A conversion in a message, with the word before it; `%%` is none.
_CONVERSION = re.compile(r"(?:\b(?P<word>\w+) )?%(?:%|[-#0 +]*[\d*]*(?:\.\d+)?[a-zA-Z])")
#: What ids and numbers of ours stand behind, and the fields that they become.
_FIELDS = {
    "run": "run_id",
    "job": "job_id",
    "worker": "worker_id",
    "course": "course",
    "token": "token_id",
    "attempt": "attempt",
    "stage": "stage",
}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, the ids that the message names, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        millis = f"{record.msecs:03.0f}"
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{millis[:3]}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_named(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def _named(record: logging.LogRecord) -> dict[str, Any]:
    """The arguments of a message that stand behind one of our words. What arguments say is not looked into."""
    if not isinstance(record.args, tuple):
        return {}
    conversions = [found for found in _CONVERSION.finditer(str(record.msg)) if not found[0].endswith("%%")]
    return {
        _FIELDS[found["word"]]: value if isinstance(value, int) else str(value)
        for found, value in zip(conversions, record.args, strict=False)
        if found["word"] in _FIELDS
    }


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


def start_logging(level: str, directory: Path, program: str, style: str = "text") -> Logging:
    """Log messages of `level` (a name such as "info") and above to stderr and to `<directory>/<program>.log`.

    `style`: "text" for people, or "json", one object a line.

    The file is rotated at midnight UTC and 7 old ones are kept. Times are UTC. Raises OSError if the file cannot be
    written.
    """
    text = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    text.converter = time.gmtime
    directory.mkdir(parents=True, exist_ok=True)
    file = logging.handlers.TimedRotatingFileHandler(
        directory / f"{program}.log", when="midnight", backupCount=KEPT_FILES, encoding="utf-8", utc=True
    )
    terminal = logging.StreamHandler(sys.stderr)
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    queued = logging.handlers.QueueHandler(records)
    # Here, where a record still has its arguments; behind the queue it is a finished line.
    queued.setFormatter(JsonFormatter() if style == "json" else text)
    listener = logging.handlers.QueueListener(records, file, terminal)
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    root.addHandler(queued)
    listener.start()
    return Logging(queued, listener)
