"""A bell that API processes ring for one another when jobs were queued: one document, watched by a change stream.

Change streams need a replica set. Elsewhere the bell is never heard, and processes find each other's jobs by looking.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pymongo
from pymongo.asynchronous.change_stream import AsyncCollectionChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from broadway_api.store.mongo_engine import Collection, Document

_BELL = "bell"

#: The server's answer to a change stream where it can have none: a standalone server.
_NO_CHANGE_STREAMS = 40573


class MongoBell:
    """The bell's document in the collection `meta`."""

    def __init__(self, meta: Collection) -> None:
        self._meta = meta
        self._stream: AsyncCollectionChangeStream[Document] | None = None

    async def ring(self) -> None:
        """Tell all processes, this one included."""
        await self._meta.update_one({"_id": _BELL}, {"$inc": {"rung": 1}}, upsert=True)

    async def heard(self) -> None:
        """Return when it was rung since the last call; never without change streams."""
        try:
            if self._stream is None:
                only_bell: list[dict[str, Any]] = [{"$match": {"documentKey._id": _BELL}}]
                with pymongo.timeout(None):  # a silent bell is no fault
                    self._stream = await self._meta.watch(only_bell, max_await_time_ms=10_000)
            with pymongo.timeout(None):
                await self._stream.next()
        except OperationFailure as error:
            if error.code != _NO_CHANGE_STREAMS:
                await self.close()
                raise
            await asyncio.Event().wait()
        except PyMongoError:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening; `heard` begins anew."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.close()
