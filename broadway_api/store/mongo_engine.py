"""A MongoDB database: connected for durability, its schema checked, its driver's errors translated.

One document is the unit of every change, so a standalone `mongod` serves as well as a replica set.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pymongo
from pymongo import AsyncMongoClient, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError

from broadway_api.errors import SchemaTooNew, StoreUnavailable, StoreUrlInvalid

P = ParamSpec("P")
T = TypeVar("T")
Document = dict[str, Any]
Collection = AsyncCollection[Document]

DEFAULT_DATABASE = "broadway"

#: Not for the URL to weaken: what was acknowledged survives the loss of any minority, and is what everybody reads.
_DURABILITY: Mapping[str, Any] = {
    "w": "majority",
    "journal": True,
    "retryWrites": True,
    "readConcernLevel": "majority",
    "readPreference": "primary",
    "tz_aware": True,
}

#: Milliseconds, unless the URL says otherwise: to find a primary, and for its answer, so that nobody waits for ever on
#: a frozen server. Not `timeoutMS`: the driver then spends all of it on looking for a server that is not there.
_TIMEOUTS: Mapping[str, Any] = {"serverSelectionTimeoutMS": 5_000, "socketTimeoutMS": 20_000}

#: Seconds to make an index on a collection that has grown large without it.
_INDEX_TIMEOUT = 600

#: Seconds to end the sessions that the server still has of us; it forgets them by itself, too.
_GOODBYE_TIMEOUT = 0.5

_NAMESPACE_EXISTS = 48  # an error code of the server's


class MongoEngine:
    """The database that a URL names (`broadway` if it names none) with its indexes."""

    def __init__(
        self,
        url: str,
        indexes: Mapping[str, Sequence[IndexModel]],
        upgrades: Sequence[Callable[[Any], Awaitable[None]]],
    ) -> None:
        """`upgrades`: what makes each version of the schema, from the second on, out of the one before.

        Raises StoreUrlInvalid.
        """
        self._indexes = indexes
        self._upgrades = upgrades
        self.has_change_streams = False  # known once it is open
        try:
            given = {name.lower() for name, _ in parse_qsl(urlsplit(url).query)}
            timeouts = {name: value for name, value in _TIMEOUTS.items() if name.lower() not in given}
            self._client: AsyncMongoClient[Document] = AsyncMongoClient(url, **timeouts, **_DURABILITY)
            self._database = self._client.get_default_database(DEFAULT_DATABASE)
        except (ConfigurationError, ValueError, TypeError):  # their messages may quote the password
            problem = "it is no valid MongoDB URL; user name and password must be percent-encoded"
            raise StoreUrlInvalid(url, problem) from None

    def collection(self, name: str) -> Collection:
        return self._database[name]

    async def open(self) -> None:
        """Check, record or upgrade the schema's version, then make the indexes. Raises SchemaTooNew."""
        # Commands do not take over the client's options: without these its times would be naive.
        hello = await self._client.admin.command("hello", codec_options=self._database.codec_options)
        self.has_change_streams = "setName" in hello or hello.get("msg") == "isdbgrid"  # a replica set, or mongos
        meta = self.collection("meta")
        known = 1 + len(self._upgrades)
        await meta.update_one({"_id": "schema"}, {"$setOnInsert": {"version": known}}, upsert=True)
        schema = await meta.find_one({"_id": "schema"})
        found = schema["version"] if schema else known
        if found > known:
            raise SchemaTooNew(found, known)
        with pymongo.timeout(_INDEX_TIMEOUT):
            for version, upgrade in enumerate(self._upgrades[found - 1 :], start=found + 1):
                await upgrade(self._database)
                await meta.update_one({"_id": "schema"}, {"$max": {"version": version}})
            for name, indexes in self._indexes.items():
                await self.collection(name).create_indexes(list(indexes))

    async def create_capped(self, name: str, size: int) -> None:
        """Make a collection of so many bytes in which the newest overwrites the oldest, unless it is there."""
        try:
            await self._database.create_collection(name, check_exists=False, capped=True, size=size)
        except OperationFailure as error:
            if error.code != _NAMESPACE_EXISTS:
                raise

    async def close(self) -> None:
        with pymongo.timeout(_GOODBYE_TIMEOUT):
            await self._client.close()

    async def ping(self) -> None:
        """Return once a majority has written."""
        await self.collection("meta").update_one({"_id": "ping"}, {"$currentDate": {"at": True}}, upsert=True)

    async def time(self) -> datetime:
        """The clock of the server that takes our writes."""
        # Commands do not take over the client's options: without these its times would be naive.
        hello = await self._client.admin.command("hello", codec_options=self._database.codec_options)
        local: datetime = hello["localTime"]
        return local


def translate_errors(store: type[T]) -> type[T]:
    """Let the public coroutine methods of a class raise StoreUnavailable where the driver fails."""
    for name, member in vars(store).items():
        if inspect.iscoroutinefunction(member) and (name == "__aenter__" or not name.startswith("_")):
            setattr(store, name, _translating(member))
    return store


def _translating(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    @functools.wraps(method)
    async def translating(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except PyMongoError as error:
            # What comes after repeats the client's settings and its view of every server.
            raise StoreUnavailable(re.split(r",? \(configured timeouts|, Timeout:", str(error))[0]) from error

    return translating
