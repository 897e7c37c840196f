"""A replica set of three of the campaign's own, whose nodes may be killed, frozen and told to step down."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any, Self

import pymongo
import pymongo.errors

from broadway_client.cli.processes import free_port
from tests import services
from tests.chaos.fleet import Managed, mongod

NODES = ("node-0", "node-1", "node-2")
READY_SECONDS = 60.0


class ReplicaSet:
    """Its nodes are `processes`, to be supervised like all others."""

    def __init__(self, directory: Path) -> None:
        self._ports = {name: free_port() for name in NODES}
        self.processes = {name: Managed(name, mongod(directory / name, port)) for name, port in self._ports.items()}
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports.values())
        self.url = f"mongodb://{hosts}/broadway?replicaSet={services.REPLICA_SET}"

    async def __aenter__(self) -> Self:
        for process in self.processes.values():
            process.look(restart=True)
        try:
            await asyncio.to_thread(self._initiate)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for process in self.processes.values():
            process.kill(0)

    async def primary(self) -> str | None:
        """The name of the node that says that it is the primary."""
        return await asyncio.to_thread(self._find_primary)

    async def step_down(self) -> bool:
        """Tell the primary to hand over; whether there was one that did."""
        return await asyncio.to_thread(self._step_down)

    def _initiate(self) -> None:
        members = [{"_id": number, "host": f"127.0.0.1:{port}"} for number, port in enumerate(self._ports.values())]
        # Elections after two seconds and not ten: a campaign has many.
        settings = {"electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 500}
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                with self._client("node-0") as client:
                    command = {"_id": services.REPLICA_SET, "members": members, "settings": settings}
                    client.admin.command("replSetInitiate", command)
                    break
            except pymongo.errors.PyMongoError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        while self._find_primary() is None:
            if time.monotonic() > deadline:
                raise TimeoutError("the replica set elects no primary")
            time.sleep(0.2)

    def _find_primary(self) -> str | None:
        for name, process in self.processes.items():
            if process.pid is not None:
                with contextlib.suppress(pymongo.errors.PyMongoError), self._client(name) as client:
                    if client.admin.command("hello").get("isWritablePrimary"):
                        return name
        return None

    def _step_down(self) -> bool:
        name = self._find_primary()
        if name is None:
            return False
        with self._client(name) as client:
            try:
                client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=2)
            except pymongo.errors.AutoReconnect:
                return True  # it hangs up on everybody while it does as it was told
            except pymongo.errors.PyMongoError:
                return False
        return True

    def _client(self, name: str) -> pymongo.MongoClient[dict[str, Any]]:
        url = f"mongodb://127.0.0.1:{self._ports[name]}/?directConnection=true"
        return pymongo.MongoClient(url, serverSelectionTimeoutMS=300, socketTimeoutMS=4_000)
