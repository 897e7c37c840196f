"""Courses and tokens in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pymongo.errors import DuplicateKeyError

from broadway_api.store import records
from broadway_api.store.mongo_documents import DIRECTORY
from broadway_api.store.mongo_engine import translate_errors
from broadway_api.store.mongo_part import MongoPart
from broadway_api.tenants import Directory


@translate_errors
class MongoDirectory(MongoPart):
    """One document, replaced as a whole: what needs no transaction cannot be seen half done."""

    async def directory(self) -> Directory:
        document = await self._meta.find_one({"_id": DIRECTORY})
        return Directory() if document is None else records.directory_from_json(document, document["version"])

    async def directory_since(self, version: int) -> Directory | None:
        document = await self._meta.find_one({"_id": DIRECTORY, "version": {"$ne": version}})
        return None if document is None else records.directory_from_json(document, document["version"])

    async def change_directory(self, change: Callable[[Directory], Directory]) -> Directory:
        while True:
            before = await self.directory()
            after = change(before)
            if after == before:
                return before
            after = replace(after, version=before.version + 1)
            document = {"version": after.version, **records.directory_to_json(after)}
            try:
                await self._meta.replace_one({"_id": DIRECTORY, "version": before.version}, document, upsert=True)
            except DuplicateKeyError:  # there is one, of another version: somebody was faster
                continue
            return after
