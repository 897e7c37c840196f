"""News of the engine's images, so that nobody needs to look before every stage whether one is still what it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

import urllib3

from broadway_grader.runtimes.engine import ENGINE_ERRORS, Engine
from broadway_grader.runtimes.line import Line

log = logging.getLogger(__name__)


class ImageNews:
    """Hears from the engine whenever one of its images has come, gone or changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changes = 0  # written by one thread at a time: the one that reads
        self._line: Line | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def changes(self) -> int | None:
        """A number that is another one once something may have changed; None if the engine tells no news."""
        if self._line is None:
            async with self._connecting:
                await self._connect()
        return None if self._line is None else self._changes

    async def close(self) -> None:
        """Hear no more; idempotent."""
        if self._line is not None:
            self._line.disconnect()
        if self._reading is not None:
            await asyncio.wait({self._reading})

    async def _connect(self) -> None:
        if self._line is None:
            try:
                self._line = await self._engine.call(_subscribe, self._engine.api)
            except ENGINE_ERRORS as error:
                log.debug("the engine tells no news of its images: %s", error)
            else:
                self._reading = asyncio.create_task(self._listen(self._line), name="news of images")

    async def _listen(self, line: Line) -> None:
        try:
            await self._engine.call(self._read, line)
        finally:
            line.hang_up()
            self._line = None
            self._changes += 1  # of what happens from now on we may not hear

    def _read(self, line: Line) -> None:
        # An engine that dies ends this; the next one to ask for news finds it back, or not.
        with (
            contextlib.closing(line.response),
            contextlib.suppress(*ENGINE_ERRORS, urllib3.exceptions.HTTPError, OSError),
        ):
            for _ in line.response.iter_content(chunk_size=None):
                self._changes += 1


def _subscribe(api: Any) -> Line:
    url = f"{api.base_url}/v{api.api_version}/events"
    filters = json.dumps({"type": ["image"]})
    return Line(api.get(url, params={"filters": filters}, stream=True, timeout=None))  # weeks may pass without any
