"""The short way of requests to a local engine."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import requests

from broadway_grader.runtimes.local_requests import LocalRequests
from tests.grader.stages import IMAGE, until

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Engine(socketserver.ThreadingUnixStreamServer):
    """Notes how many connections it had; hangs up after as many answers as it is told, or does not answer at all."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, _Answers)
        self.connections = 0
        self.answers = 1000


class _Answers(socketserver.StreamRequestHandler):
    server: _Engine

    def handle(self) -> None:
        self.server.connections += 1
        for _ in range(self.server.answers):
            while line := self.rfile.readline().strip():
                assert not line.startswith(b"Accept-Encoding: gzip"), line
            self.wfile.write(ANSWER)
        if not self.server.answers:
            self.rfile.read()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Engine]:
    with _Engine(str(tmp_path / "engine.sock")) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def api(server: _Engine) -> Iterator[Any]:
    api = docker.APIClient(f"unix://{server.server_address!s}", version="1.41", timeout=30)
    yield api
    api.close()


@pytest.fixture(autouse=True)
def short(api: Any) -> Iterator[LocalRequests]:
    short = LocalRequests(api)
    yield short
    short.close()


def test_a_connection_is_used_again(api: Any, server: _Engine) -> None:
    for container in ("a", "b", "c"):
        api.start(container)
        api.remove_container(container)
    assert server.connections == 1


async def test_one_that_the_engine_has_closed_is_not(api: Any, server: _Engine, short: LocalRequests) -> None:
    server.answers = 1
    for number in range(1, 4):
        api.start("a")
        assert server.connections == number
        await until(lambda: not short._idle[0].is_open(), "the end of the connection")


def test_an_engine_that_does_not_answer_is_waited_for_as_long_as_was_said(api: Any, server: _Engine) -> None:
    server.answers = 0
    with pytest.raises(requests.ReadTimeout):
        api.wait("a", timeout=0.1)


def test_an_engine_that_is_gone_is_a_failed_connection(api: Any, server: _Engine, tmp_path: Path) -> None:
    (tmp_path / "engine.sock").unlink()
    with pytest.raises(requests.ConnectionError):
        api.start("a")


def test_what_the_engine_refuses_is_told_in_its_words(engine: Any) -> None:
    api = docker.from_env(version="auto").api
    short = LocalRequests(api)
    with pytest.raises(docker.errors.NotFound, match="No such container: nobody"):
        api.start("nobody")
    with pytest.raises(docker.errors.APIError) as caught:
        api.create_container_from_config({"Image": IMAGE, "HostConfig": {"Memory": 4096}})
    assert (caught.value.status_code, "inimum memory limit" in str(caught.value.explanation)) == (400, True)
    short.close()
    api.close()


def test_other_engines_are_asked_the_sdks_way() -> None:
    api = docker.APIClient("tcp://127.0.0.1:1", version="1.41")
    request = api.request
    LocalRequests(api).close()
    assert api.request == request
