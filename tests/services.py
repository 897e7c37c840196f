"""The real services that tests speak to, started on free loopback ports and stopped when the session ends."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pymongo.errors

from broadway_client.cli.processes import Process, free_port, start

ROOT = Path(__file__).parents[1]
REPLICA_SET = "broadway"
READY_SECONDS = 60  # generous: a shared two-core machine starts four servers at once


class ServiceMissing(Exception):
    """What a test needs is not installed. Such a test fails: a skip would hide that nothing was tested."""


def mongod_binary() -> Path:
    """The `mongod` to run: one on PATH, else the one that `make services` unpacked."""
    return _binary("mongod", ROOT / ".services" / "mongodb" / "mongod")


def nginx_binary() -> Path:
    """The `nginx` to run, found in the same way."""
    return _binary("nginx", ROOT / ".services" / "nginx" / "usr" / "sbin" / "nginx")


def _binary(name: str, unpacked: Path) -> Path:
    found = shutil.which(name) or shutil.which(unpacked)
    if found is None:
        raise ServiceMissing(f"no {name} on PATH nor at {unpacked}: run `make services`")
    return Path(found)


def with_database(url: str, name: str) -> str:
    """A MongoDB URL that names the database `name`."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def mongo_standalone() -> Iterator[str]:
    """One mongod of its own; the URL to reach it by."""
    with ExitStack() as stack:
        port = _start_mongod(stack)
        yield f"mongodb://127.0.0.1:{port}/"


@contextmanager
def mongo_replica_set() -> Iterator[str]:
    """A replica set of three with a primary elected and both secondaries in step; the URL to reach it by."""
    with ExitStack() as stack:
        hosts = [f"127.0.0.1:{_start_mongod(stack, '--replSet', REPLICA_SET, '--oplogSize', '64')}" for _ in range(3)]
        members = [{"_id": number, "host": host} for number, host in enumerate(hosts)]
        with _client(f"mongodb://{hosts[0]}/?directConnection=true") as client:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
            _elect(client)
        yield f"mongodb://{','.join(hosts)}/?replicaSet={REPLICA_SET}"


def _start_mongod(stack: ExitStack, *options: str) -> int:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="broadway-mongod-")))
    port = free_port()
    process = start(
        [
            *(mongod_binary(), "--dbpath", directory, "--bind_ip", "127.0.0.1", "--port", str(port)),
            *("--wiredTigerCacheSizeGB", "0.25", "--nounixsocket", *options),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ],
        log=directory / "mongod.log",
    )
    stack.callback(process.kill)  # its data goes with the directory: no clean shutdown to wait for
    _await_ping(process, port)
    return port


def _await_ping(process: Process, port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with _client(f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
        while True:
            try:
                client.admin.command("ping")
                return
            except pymongo.errors.PyMongoError as error:
                if process.exit_code is not None or time.monotonic() > deadline:
                    raise TimeoutError(f"mongod does not answer ({error}); its log:\n{process.output()}") from error


def _elect(client: pymongo.MongoClient[dict[str, Any]]) -> None:
    """Wait until this member is the primary and the others are its secondaries.

    A new set waits a whole election timeout (10 s) before anybody stands; a member told to step up stands at once.
    """
    deadline = time.monotonic() + READY_SECONDS
    states: list[str] = []
    while time.monotonic() < deadline:
        states = sorted(member["stateStr"] for member in client.admin.command("replSetGetStatus")["members"])
        if states == ["PRIMARY", "SECONDARY", "SECONDARY"]:
            return
        if states == ["SECONDARY"] * 3:
            with contextlib.suppress(pymongo.errors.OperationFailure):  # lost to another member: that is as good
                client.admin.command("replSetStepUp")
        time.sleep(0.1)
    raise TimeoutError(f"the replica set is not ready: {states}")


def _client(url: str) -> pymongo.MongoClient[dict[str, Any]]:
    # A short selection timeout makes each command one step of polling, so that a dead mongod is noticed at once.
    return pymongo.MongoClient(url, serverSelectionTimeoutMS=500)
