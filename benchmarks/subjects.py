"""An API on each of the stores, as benchmarks ask about it: what it uses, what it keeps."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from benchmarks.cpu import cpu_seconds
from benchmarks.mongod import server_status
from benchmarks.servers import Server, api
from tests.services import mongo_standalone


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An API on a store, and what can be read of them."""

    name: str
    server: Server
    pids: Mapping[str, int]  # whose CPU time, and bytes written to the disk, count
    stored: Callable[[], dict[str, int]]  # bytes on the disk, by what they are
    exchanged: Callable[[], int] = lambda: 0  # bytes between the API and the store

    def cpu(self) -> dict[str, float]:
        """Seconds that they have used so far."""
        return {what: cpu_seconds([pid]) for what, pid in self.pids.items()}


@asynccontextmanager
async def on_sqlite() -> AsyncIterator[Subject]:
    """On the embedded store."""
    with tempfile.TemporaryDirectory(prefix="broadway-bench-") as directory:
        file = Path(directory, "cost.db")

        def stored() -> dict[str, int]:
            with closing(sqlite3.connect(file)) as database:
                sizes = database.execute(
                    "SELECT CASE WHEN type = 'index' THEN 'indexes' WHEN tbl_name = 'logs' THEN 'logs' ELSE 'rows' END,"
                    " sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) GROUP BY 1"
                )
                return dict(sizes)

        async with api(f"sqlite:///{file}") as server:
            yield Subject(name="SQLite", server=server, pids={"the API": server.process.pid}, stored=stored)


@asynccontextmanager
async def on_mongodb() -> AsyncIterator[Subject]:
    """On a standalone mongod."""
    with mongo_standalone() as url:

        def stored() -> dict[str, int]:
            with MongoClient[dict[str, Any]](url) as client:
                client.admin.command("fsync")  # sizes are those of the last checkpoint
                jobs, logs = (client["bench"].command("collStats", name) for name in ("jobs", "logs"))
            indexes = jobs["totalIndexSize"] + logs["totalIndexSize"]
            return {"documents": jobs["storageSize"], "logs": logs["storageSize"], "indexes": indexes}

        def exchanged() -> int:
            counters = server_status(url)["network"]
            return int(counters["bytesIn"] + counters["bytesOut"])

        async with api(f"{url}bench") as server:
            pids = {"the API": server.process.pid, "mongod": server_status(url)["pid"]}
            yield Subject(name="MongoDB", server=server, pids=pids, stored=stored, exchanged=exchanged)


STORES = (on_sqlite, on_mongodb)
