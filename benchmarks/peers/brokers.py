"""Redis and RabbitMQ for a comparison: on free loopback ports, in temporary directories, gone afterwards."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from broadway_client.cli.processes import Process, free_port, start

#: Seconds that a broker has to come up on a machine that does other things.
PATIENCE = 90


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A broker that listens."""

    url: str
    process: Process


@contextmanager
def redis(fsync: str) -> Iterator[Broker]:
    """Redis with an append-only file that is forced to the disk `everysec` or `always`, without snapshots."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="broadway-redis-"))
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""]
        process = start([*command, "--appendonly", "yes", "--appendfsync", fsync], log=Path(directory, "log"))
        stack.callback(process.kill)
        _listening(process, port)
        yield Broker(url=f"redis://127.0.0.1:{port}", process=process)


@contextmanager
def rabbitmq() -> Iterator[Broker]:
    """RabbitMQ as Debian sets it up, without plugins."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="broadway-rabbitmq-"))
        port, names = free_port(), free_port()
        settings = {
            "HOME": directory,  # Erlang keeps a cookie there
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_CONFIG_FILE": f"{directory}/none",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/plugins",
            "RABBITMQ_LOG_BASE": directory,
            "RABBITMQ_MNESIA_BASE": f"{directory}/mnesia",
            "RABBITMQ_NODENAME": "broadway-peers@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
        }
        environment = {**os.environ, **settings}
        log = Path(directory, "log")
        # Erlang would start its register of names by itself, as a daemon that stays.
        register = start(["epmd"], log=log, environment=environment)
        stack.callback(register.kill)
        _listening(register, names)
        # Not Debian's wrapper, which would change to the directories and the user of its own service.
        process = start(["/usr/lib/rabbitmq/bin/rabbitmq-server"], log=log, environment=environment)
        stack.callback(process.kill)
        _listening(process, port)
        yield Broker(url=f"amqp://guest:guest@127.0.0.1:{port}", process=process)


def _listening(process: Process, port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.exit_code is not None or time.monotonic() > deadline:
                raise TimeoutError(f"it does not listen; its log:\n{process.output()}") from None
            time.sleep(0.1)
