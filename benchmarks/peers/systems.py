"""What is compared: each queue on a broker, how its processes are started, and what it promises."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.mongod import server_status
from benchmarks.peers.brokers import Broker, redis
from benchmarks.servers import ROOT, TOKEN, api
from tests.services import mongo_standalone

_Command = tuple[str | Path, ...]

_VENV = ROOT / ".services" / "peers" / "venv" / "bin"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A broker that is ready and empty: what others are told of it, and its processes, whose CPU time counts."""

    environment: dict[str, str]
    pids: list[int]


#: Provides a setting for one trial, given the RabbitMQ that all trials share, since that takes seconds to start.
Provide = Callable[[Broker], AbstractAsyncContextManager[Setting]]


@dataclass(frozen=True, kw_only=True)
class System:
    """One line of the comparison."""

    name: str
    peer: str  # its module here
    workers: tuple[_Command, ...]  # commands that start two worker processes in all
    provide: Provide
    on_disk: str  # what is forced to the disk before it is acknowledged
    python: Path = _VENV / "python"
    must_beat: bool = False  # Broadway has to be ahead of it; of the others it would like to be


@asynccontextmanager
async def _redis(rabbitmq: Broker, *, fsync: str = "everysec") -> AsyncIterator[Setting]:
    """Jobs and results in one Redis."""
    del rabbitmq
    with redis(fsync) as store:
        urls = {"PEER_BROKER": f"{store.url}/0", "PEER_RESULTS": f"{store.url}/1", "RQ_REDIS_URL": f"{store.url}/0"}
        yield Setting(environment=urls, pids=[store.process.pid])


@asynccontextmanager
async def _rabbitmq(rabbitmq: Broker, *, confirm: bool = False) -> AsyncIterator[Setting]:
    """Jobs in RabbitMQ, results in Redis."""
    with redis("everysec") as store:
        environment = {"PEER_BROKER": rabbitmq.url, "PEER_RESULTS": store.url, "PEER_CONFIRM": str(int(confirm))}
        yield Setting(environment=environment, pids=[rabbitmq.process.pid, store.process.pid])


@asynccontextmanager
async def _sqlite(rabbitmq: Broker) -> AsyncIterator[Setting]:
    del rabbitmq
    async with api() as server:
        yield Setting(environment=_broadway(server.port), pids=[server.process.pid])


@asynccontextmanager
async def _mongodb(rabbitmq: Broker) -> AsyncIterator[Setting]:
    del rabbitmq
    with mongo_standalone() as url:
        async with api(f"{url}bench") as server:
            yield Setting(environment=_broadway(server.port), pids=[server.process.pid, server_status(url)["pid"]])


def _broadway(port: int) -> dict[str, str]:
    return {"PEER_BROKER": f"http://127.0.0.1:{port}", "PEER_TOKEN": TOKEN}


_CELERY = (_VENV / "celery", "-A", "benchmarks.peers.celery_peer", "worker", "-c", "2", "-l", "WARNING")
_RQ = (_VENV / "rq", "worker", "-w", "rq.worker.SimpleWorker", "-q")
_DRAMATIQ = (_VENV / "dramatiq", "benchmarks.peers.dramatiq_peer", "-p", "2")
_TASKIQ = (_VENV / "taskiq", "worker", "benchmarks.peers.taskiq_peer:broker", "-w", "2", "--log-level", "WARNING")
_WORKER = (sys.executable, "-m", "benchmarks.peers.broadway_worker")

_ONCE_A_SECOND = "nothing; Redis syncs once a second"
_ALWAYS = "jobs and results"
_UNCONFIRMED = "nothing; nobody waits for RabbitMQ, Redis syncs once a second"
_CONFIRMED = "jobs; of results Redis syncs once a second"
_BROADWAY = "jobs, claims, results and 1 KB of log each"

BROADWAY = tuple(
    System(
        name=f"Broadway, {store}",
        peer="broadway_peer",
        python=Path(sys.executable),
        workers=(_WORKER, _WORKER),
        provide=provide,
        on_disk=_BROADWAY,
    )
    for store, provide in (("SQLite", _sqlite), ("MongoDB", _mongodb))
)


def _on_redis(name: str, peer: str, *workers: _Command, must_beat: bool = False) -> tuple[System, System]:
    """A peer that has its jobs in Redis: as everybody has it, and with nothing acknowledged that is not on disk."""
    usual = System(name=name, peer=peer, workers=workers, provide=_redis, on_disk=_ONCE_A_SECOND, must_beat=must_beat)
    always = partial(_redis, fsync="always")
    return usual, replace(usual, name=f"{name} syncing always", provide=always, on_disk=_ALWAYS)


PEERS = (
    *_on_redis("Celery, Redis", "celery_peer", _CELERY, must_beat=True),
    System(
        name="Celery, RabbitMQ",
        peer="celery_peer",
        workers=(_CELERY,),
        provide=_rabbitmq,
        on_disk=_UNCONFIRMED,
        must_beat=True,
    ),
    *_on_redis("RQ, Redis", "rq_peer", _RQ, _RQ, must_beat=True),
    System(
        name="Dramatiq, RabbitMQ",
        peer="dramatiq_peer",
        workers=(_DRAMATIQ,),
        provide=_rabbitmq,
        on_disk=_UNCONFIRMED,
    ),
    System(
        name="Dramatiq, RabbitMQ confirming",
        peer="dramatiq_peer",
        workers=(_DRAMATIQ,),
        provide=partial(_rabbitmq, confirm=True),
        on_disk=_CONFIRMED,
    ),
    *_on_redis("Taskiq, Redis stream", "taskiq_peer", _TASKIQ),
)
