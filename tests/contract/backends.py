"""The kinds of store that the contract is tested on, and what only a test may do to their data."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pymongo

from broadway_api.store import mongo_upgrades, sqlite_schema
from tests import services


class Backend(Protocol):
    """An empty store's place."""

    url: str
    shared: bool  # whether several processes may have it open
    version: int  # of the schema that this release makes

    def clear(self) -> None:
        """Forget everything that was stored; nobody has it open."""
        ...

    def queue(self) -> list[tuple[str, str]]:
        """All queued jobs in the urgent order, by id, with what they require: read as they stand there."""
        ...

    def schema_version(self) -> int: ...

    def set_schema_version(self, version: int) -> None: ...


class SqliteBackend:
    """A file in a directory of the test's own."""

    shared = False
    version = len(sqlite_schema.VERSIONS)

    def __init__(self, directory: Path) -> None:
        self.path = directory / "broadway.db"
        self.url = f"sqlite:///{self.path}"

    def clear(self) -> None:
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink()

    def queue(self) -> list[tuple[str, str]]:
        in_order = "SELECT id, requirement FROM jobs WHERE state = 'queued' ORDER BY priority DESC, rank, id"
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(in_order).fetchall()

    def schema_version(self) -> int:
        with closing(sqlite3.connect(self.path)) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def set_schema_version(self, version: int) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(f"PRAGMA user_version = {version:d}")


class MongoBackend:
    """A database of a real mongod or replica set, emptied rather than dropped: to make its indexes takes longer."""

    shared = True
    version = mongo_upgrades.SCHEMA_VERSION
    DATABASE = "contract"

    def __init__(self, server_url: str, client: pymongo.MongoClient[dict[str, Any]]) -> None:
        self.url = services.with_database(server_url, self.DATABASE)
        self.database = client[self.DATABASE]

    def clear(self) -> None:
        for name in self.database.list_collection_names():
            self.database[name].delete_many({})

    def queue(self) -> list[tuple[str, str]]:
        in_order = self.database["jobs"].find({"state": "queued"}).sort([("priority", -1), ("rank", 1), ("_id", 1)])
        return [(job["_id"], job["requirement"]) for job in in_order]

    def schema_version(self) -> int:
        schema = self.database["meta"].find_one({"_id": "schema"})
        assert schema is not None
        return int(schema["version"])

    def set_schema_version(self, version: int) -> None:
        self.database["meta"].update_one({"_id": "schema"}, {"$set": {"version": version}}, upsert=True)
