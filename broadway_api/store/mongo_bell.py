"""A bell that API processes ring for one another when jobs were queued: one document, watched by a change stream.

Change streams need a replica set. Elsewhere the bell is neither rung nor heard, and processes find each other's jobs by
looking.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pymongo
from pymongo import WriteConcern
from pymongo.asynchronous.change_stream import AsyncCollectionChangeStream
from pymongo.errors import PyMongoError

from broadway_api.store.mongo_engine import Document, MongoEngine

_BELL = "bell"

#: Milliseconds that the server holds a look at a silent bell: well below the time after which a socket is given up.
_SILENCE = 10_000


class MongoBell:
    """The bell's document in the collection `meta`."""

    def __init__(self, engine: MongoEngine) -> None:
        self._engine = engine
        self._meta = engine.collection("meta")
        self._stream: AsyncCollectionChangeStream[Document] | None = None

    async def ring(self) -> None:
        """Tell all processes, this one included."""
        if self._engine.has_change_streams:
            # Not durable: who misses it finds the jobs a second later.
            soon = self._meta.with_options(write_concern=WriteConcern(w=1, j=False))
            await soon.update_one({"_id": _BELL}, {"$inc": {"rung": 1}}, upsert=True)

    async def heard(self) -> None:
        """Return when it was rung since the last call; never without change streams."""
        if not self._engine.has_change_streams:
            await asyncio.Event().wait()
        try:
            with pymongo.timeout(None):  # a silent bell is no fault, whatever the URL says of time-outs
                if self._stream is None:
                    only_bell: list[dict[str, Any]] = [{"$match": {"documentKey._id": _BELL}}]
                    self._stream = await self._meta.watch(only_bell, max_await_time_ms=_SILENCE)
                await self._stream.next()
        except BaseException:  # also a caller that gives up: its stream reads no further
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening; `heard` begins anew."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with contextlib.suppress(PyMongoError):  # the server forgets a stream that nobody reads
                await stream.close()
