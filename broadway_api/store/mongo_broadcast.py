"""What API processes tell one another and nobody keeps: a capped collection, read by a cursor that waits at its end.

It needs no replica set, is bounded by itself, and its notes are written without waiting for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import pymongo
from bson import ObjectId
from pymongo import CursorType, ReadPreference, WriteConcern
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from broadway_api.store.mongo_engine import Collection, Document, MongoEngine

_NOTES = "broadcast"

#: Bytes of the collection: some seconds of what hundreds of followed jobs print. Who is slower misses some.
_SIZE = 16 * 1024**2

#: Milliseconds that the server holds a look at silence: well below the time after which a socket is given up.
_SILENCE = 10_000

#: Seconds before a cursor that ended is opened again.
_PAUSE = 0.5

#: Notes that are taken at a time.
_BATCH = 100


class MongoBroadcast:
    """One process's end of it."""

    def __init__(self, engine: MongoEngine) -> None:
        self._engine = engine
        self._sender = ObjectId()
        self._cursor: AsyncCursor[Document] | None = None
        self._ready = False

    async def send(self, note: Mapping[str, Any]) -> None:
        """Tell the other processes, those that listen now."""
        notes = await self._notes()
        await notes.insert_one({"sender": self._sender, "note": dict(note)})

    async def heard(self) -> list[Mapping[str, Any]]:
        """What others have sent since the last call; at first, whatever is still there."""
        notes = await self._notes()
        try:
            with pymongo.timeout(None):  # silence is no fault, whatever the URL says of time-outs
                while True:
                    if self._cursor is None:
                        self._cursor = await self._listen(notes)
                    found = await self._cursor.to_list(length=1)
                    if fresh := [one["note"] for one in found if one["sender"] != self._sender]:
                        return fresh
                    if not self._cursor.alive:  # what it stood at was overwritten
                        await self.close()
                        await asyncio.sleep(_PAUSE)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening; `heard` begins anew."""
        if self._cursor is not None:
            cursor, self._cursor = self._cursor, None
            with contextlib.suppress(PyMongoError):  # the server forgets a cursor that nobody reads
                await cursor.close()

    async def _listen(self, notes: Collection) -> AsyncCursor[Document]:
        if await notes.find_one({}, {"_id": True}) is None:  # a cursor needs something to stand at
            await notes.insert_one({"sender": self._sender, "note": {}})
        cursor = notes.find(cursor_type=CursorType.TAILABLE_AWAIT, batch_size=_BATCH)
        return cursor.max_await_time_ms(_SILENCE)

    async def _notes(self) -> Collection:
        notes = self._engine.collection(_NOTES).with_options(
            write_concern=WriteConcern(w=1, j=False),
            read_concern=ReadConcern("local"),
            read_preference=ReadPreference.PRIMARY,
        )
        if not self._ready:
            await self._engine.create_capped(_NOTES, _SIZE)
            self._ready = True
        return notes
