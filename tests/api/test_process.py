"""`api.py` as an operator runs it: how it starts, why it refuses to, what it logs, how it stops."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pymongo
import pytest

from broadway_client.cli.processes import Process, free_port, start
from tests import services
from tests.api.serving import run_config

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 15.0  # five are promised, of a machine that has time
START_SECONDS = 30.0
TOKEN = "given-token-of-this-test"


class Api:
    """One `api.py` in its own directory; every start of it takes the same options."""

    def __init__(self, directory: Path, stack: ExitStack, *options: str, token: str = "") -> None:
        self.data = directory / "data"
        self.port = free_port()
        self._stack = stack
        self._directory = directory
        self._options = ["--port", str(self.port), "--data-dir", str(self.data), *options]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
        self._environment |= {"BROADWAY_TOKEN": token} if token else {}
        self._starts = 0

    def start(self, *more: str) -> Process:
        self._starts += 1
        log = self._directory / f"output-{self._starts}"
        command: list[str | Path] = [sys.executable, ROOT / "api.py", *self._options, *more]
        process = start(command, log=log, environment=self._environment)
        self._stack.callback(process.kill)
        return process

    def refuses(self, *more: str) -> str:
        """The one line that it ends with, status 2."""
        process = self.start(*more)
        assert process.wait(START_SECONDS) == 2, process.output()
        lines = process.output().splitlines()
        assert "Traceback" not in process.output()
        told = [line for line in lines if line.startswith("api.py:")]
        assert len(told) == 1, process.output()
        return told[0]

    def ready(self, process: Process, *, scheme: str = "http", verify: ssl.SSLContext | bool = True) -> httpx.Client:
        client = httpx.Client(base_url=f"{scheme}://127.0.0.1:{self.port}", timeout=START_SECONDS, verify=verify)
        self._stack.callback(client.close)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                assert client.get("/healthz").status_code == 200
            except httpx.TransportError:
                assert process.exit_code is None, process.output()
                assert time.monotonic() < deadline, process.output()
                time.sleep(0.05)
            else:
                return client

    def logs(self) -> str:
        """Everything in its log files."""
        return "".join(path.read_text() for path in sorted((self.data / "logs").iterdir()))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_the_made_token_is_kept_private_and_the_same_after_a_restart(tmp_path: Path, stack: ExitStack) -> None:
    api = Api(tmp_path, stack)
    process = api.start()
    client = api.ready(process)
    kept = api.data / "cluster_token"
    token = kept.read_text().strip()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(token) >= 32
    assert process.output().count(token) == 1  # told once
    assert client.get("/api/v1/workers", headers={"Authorization": token}).status_code == 200
    assert process.stop(STOP_SECONDS) == 0
    again = api.start()
    client = api.ready(again)
    assert client.get("/api/v1/workers", headers={"Authorization": token}).status_code == 200
    assert kept.read_text().strip() == token
    assert token not in again.output()
    assert again.stop(STOP_SECONDS) == 0
    assert token not in api.logs()


def test_no_token_is_ever_logged(tmp_path: Path, stack: ExitStack) -> None:
    api = Api(tmp_path, stack, "--log-level", "debug", token=TOKEN)
    process = api.start()
    client = api.ready(process)
    wrong = "a-wrong-token-that-is-secret-elsewhere"
    for token, status in ((TOKEN, 200), (wrong, 401)):
        for headers in ({"Authorization": token}, {"Authorization": f"Bearer {token}"}):
            asked = client.get("/api/v1/workers", params={"token": token, "access_token": token}, headers=headers)
            assert asked.status_code == status
            client.post("/api/v1/grading_run", content=b'{"token": "' + token.encode() + b'"}', headers=headers)
            client.get("/api/v1/grading_job", params={"holding": token}, headers=headers | {"worker_id": token})
    assert process.stop(STOP_SECONDS) == 0
    written = api.logs() + process.output()
    assert "/api/v1/workers" in written
    assert TOKEN not in written
    assert wrong not in written
    assert "Traceback" not in written
    assert TOKEN not in Path(api.data / "broadway.db").read_bytes().decode(errors="replace")


def until(condition: Callable[[], bool], process: Process) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, process.output()
        assert process.exit_code is None, process.output()
        time.sleep(0.05)


def test_no_token_of_a_busy_api_is_logged_or_stored(tmp_path: Path, stack: ExitStack) -> None:
    config = tmp_path / "courses.json"
    config.write_text(json.dumps({"cs": {"tokens": ["seed-of-cs"], "query_tokens": ["reader-of-cs"]}}))
    api = Api(tmp_path, stack, "--log-level", "debug", "--course-config", str(config), token=TOKEN)
    process = api.start()
    client = api.ready(process)
    operator = {"Authorization": TOKEN}
    in_use = [TOKEN, "seed-of-cs", "reader-of-cs", "put-by-hand", "a-wrong-token-of-somewhere"]
    client.put("/api/v1/courses/ece", json={"tokens": ["put-by-hand"]}, headers=operator)
    for body in ({"role": "worker"}, {"role": "operator"}, {"role": "admin", "course": "cs"}):
        made = client.post("/api/v1/tokens", json=body | {"label": "x"}, headers=operator).json()["data"]
        in_use.append(made["token"])
        client.delete(f"/api/v1/tokens/{made['token_id']}", headers=operator)
        in_use.append(client.post("/api/v1/tokens", json=body, headers=operator).json()["data"]["token"])
    answers: list[str] = []
    for token in in_use:
        headers = {"Authorization": f"Bearer {token}"}
        client.get("/api/v1/grading_job", headers={"Authorization": token, "Worker-Id": token})
        for method, path in (("GET", "workers"), ("PUT", "courses/x"), ("GET", "tokens"), ("POST", "worker_register")):
            answers.append(client.request(method, f"/api/v1/{path}", headers=headers).text)
        answers.append(client.post("/api/v1/grading_run", json=run_config(2), headers=headers).text)
    client.put("/api/v1/courses/ece", json={"tokens": [[token] for token in in_use]}, headers=operator)
    config.write_text(json.dumps({"cs": {"tokens": [*in_use, "not valid as a token"]}}))
    process.send(signal.SIGHUP)
    until(lambda: "$.cs.tokens" in process.output(), process)
    assert process.stop(STOP_SECONDS) == 0
    stored = b"".join(path.read_bytes() for path in api.data.glob("broadway.db*")).decode(errors="replace")
    for token in in_use:
        for where in (api.logs(), process.output(), stored, "".join(answers)):
            assert token not in where
    assert "Traceback" not in process.output()


def test_cluster_tokens_are_rotated_without_a_restart(tmp_path: Path, stack: ExitStack) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# this term's\nold-token\n")
    api = Api(tmp_path, stack, "--token-file", str(tokens))
    process = api.start()
    client = api.ready(process)

    def works(token: str) -> bool:
        return client.get("/api/v1/workers", headers={"Authorization": token}).status_code == 200

    def becomes(content: str) -> None:
        (tmp_path / "next").write_text(content)
        (tmp_path / "next").rename(tokens)

    assert works("old-token")
    becomes("old-token\nnew-token\n")
    until(lambda: works("new-token"), process)
    assert works("old-token")
    becomes("")  # a mistake locks nobody out
    until(lambda: "the tokens stay as they were" in process.output(), process)
    assert works("new-token")
    becomes("new-token\n")
    until(lambda: not works("old-token"), process)
    assert works("new-token")
    tokens.write_text("old-token\n")
    process.send(signal.SIGHUP)
    until(lambda: works("old-token"), process)
    assert process.stop(STOP_SECONDS) == 0


def test_the_course_config_is_in_force_from_the_start_and_after_a_hangup(tmp_path: Path, stack: ExitStack) -> None:
    config = tmp_path / "courses.json"
    config.write_text(json.dumps({"one": {"tokens": ["of-one"]}, "two": {"query_tokens": ["of-two"], "weight": 2}}))
    api = Api(tmp_path, stack, "--course-config", str(config), token=TOKEN)
    process = api.start()
    client = api.ready(process)

    def status(token: str) -> int:
        return client.get("/api/v1/grading_run", headers={"Authorization": f"Bearer {token}"}).status_code

    def ids() -> list[str]:
        listed = client.get("/api/v1/courses", headers={"Authorization": TOKEN}).json()["data"]["courses"]
        return [course["course"] for course in listed]

    assert (status("of-one"), status("of-two"), status("of-three")) == (200, 200, 401)
    created = client.post("/api/v1/grading_run", json=run_config(), headers={"Authorization": "of-one"}).json()["data"]
    client.put("/api/v1/courses/by-hand", headers={"Authorization": TOKEN})
    config.write_text('{"one": {"tokens": ["of-one"]}, "three": {"tokens": "of-three"}}')
    process.send(signal.SIGHUP)
    until(lambda: "$.three.tokens" in process.output(), process)
    assert ids() == ["by-hand", "one", "two"]  # all or nothing
    config.write_text('{"three": {"tokens": ["of-three"]}}')
    process.send(signal.SIGHUP)
    until(lambda: status("of-three") == 200, process)
    assert (status("of-one"), status("of-two")) == (401, 401)
    assert ids() == ["by-hand", "three"]
    run = client.get(f"/api/v1/grading_run/{created['grading_run_id']}", headers={"Authorization": TOKEN})
    assert run.json()["data"]["course"] == "one"  # whose runs outlive it
    assert process.stop(STOP_SECONDS) == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file or directory"),
        ('{"cs":\n{"tokens": [}}', "line 2, column 13: not JSON"),
        ('{"cs": {"tokens": ["s3 cret"]}}', "$.cs.tokens[0]: what stands here"),
        (json.dumps({"cs": {"tokens": [TOKEN]}}), "$.cs: a token of it is the cluster token"),
    ],
)
def test_a_course_config_that_cannot_be_used_refuses_to_start(
    tmp_path: Path, stack: ExitStack, content: str | None, told: str
) -> None:
    config = tmp_path / "courses.json"
    if content is not None:
        config.write_text(content)
    line = Api(tmp_path, stack, "--course-config", str(config), token=TOKEN).refuses()
    assert f"--course-config {config}" in line
    assert told in line
    assert "cret" not in line
    assert TOKEN not in line


def test_no_token_stands_in_the_process_list(tmp_path: Path, stack: ExitStack) -> None:
    api = Api(tmp_path, stack, token=TOKEN)
    process = api.start()
    api.ready(process)
    assert TOKEN.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_waits_and_ends_with_0(tmp_path: Path, stack: ExitStack, number: signal.Signals) -> None:
    api = Api(tmp_path, stack, token=TOKEN)
    process = api.start()
    client = api.ready(process)
    headers = {"Authorization": TOKEN}
    worker = client.post("/api/v1/worker_register", headers=headers).json()["data"]["worker_id"]
    waiting = {"worker_id": worker, "Prefer": "wait=60"}
    poll = subprocess.Popen(  # a client in its own process, which waits while this one sends the signal
        [sys.executable, "-c", _POLL, f"http://127.0.0.1:{api.port}/api/v1/grading_job"],
        env=os.environ | {"HEADERS": repr(headers | waiting)},
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.enter_context(poll)
    stack.callback(poll.kill)
    assert poll.stdout is not None
    assert poll.stdout.readline() == "sent\n"
    seen = client.get("/api/v1/workers", headers=headers).json()["data"]["workers"][0]
    deadline = time.monotonic() + START_SECONDS
    while (
        client.get("/api/v1/workers", headers=headers).json()["data"]["workers"][0]["last_seen"]
        == seen["registered_at"]
    ):
        assert time.monotonic() < deadline  # its look into the queue, after which it waits, shows as having been seen
    process.send(number)
    began = time.monotonic()
    assert process.wait(STOP_SECONDS) == 0
    assert time.monotonic() - began < STOP_SECONDS
    assert poll.stdout.readline() == "498\n"
    assert poll.wait(START_SECONDS) == 0
    assert "Traceback" not in process.output()


_POLL = """
import http.client, os, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
connection.request("GET", url.path, headers=eval(os.environ["HEADERS"]))
print("sent", flush=True)
print(connection.getresponse().status, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_store_that_is_away_does_not_hold_up_a_stop(tmp_path: Path, stack: ExitStack, number: signal.Signals) -> None:
    url = stack.enter_context(services.mongo_standalone())
    api = Api(tmp_path, stack, "--store", url, token=TOKEN)
    process = api.start()
    client = api.ready(process)
    with pymongo.MongoClient[dict[str, object]](url) as mongo:
        mongod = int(str(mongo.admin.command("serverStatus")["pid"]))
    client.close()
    os.kill(mongod, number)
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", api.port), START_SECONDS))
    head = f"GET /api/v1/workers HTTP/1.1\r\nHost: x\r\nAuthorization: {TOKEN}\r\n"
    connection.sendall(f"{head}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode())
    assert connection.recv(1024).startswith(b"HTTP/1.1 100 ")  # the request is in its hands
    connection.sendall(b"{}")
    process.send(signal.SIGTERM)
    asked = time.monotonic()
    assert process.wait(START_SECONDS) == 0
    assert time.monotonic() - asked < STOP_SECONDS
    answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in answer
    assert "Traceback" not in api.logs()


def test_a_second_api_on_the_same_file_is_refused(tmp_path: Path, stack: ExitStack) -> None:
    first = Api(tmp_path, stack, token=TOKEN)
    process = first.start()
    first.ready(process)
    told = first.refuses("--port", "0")
    assert "broadway.db is in use by another Broadway API" in told
    assert process.exit_code is None
    process.kill()  # and once the first is gone, however it went, the file is free
    first.ready(first.start())


def test_a_port_in_use_is_told(tmp_path: Path, stack: ExitStack) -> None:
    first = Api(tmp_path, stack, token=TOKEN)
    first.ready(first.start())
    told = first.refuses("--data-dir", str(tmp_path / "other"))
    assert f"cannot listen on 127.0.0.1:{first.port}: Address already in use" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--store", "mysql://root:s3cret@host/db"], "the store mysql:… cannot be opened"),
        (["--store", "sqlite:relative.db"], "write sqlite:///relative/file"),
        (["--store", "sqlite://"], "write sqlite:///relative/file"),
        (["--store", "s3cret"], "cannot be opened"),
        (["--store", "mongodb://user:s3cret@"], "cannot be opened"),
        (["--store", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"], "unavailable"),
        (["--store", "sqlite:////proc/no/such.db"], "/proc/no"),
        (["--bind", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--bind", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--data-dir", "/proc/no"], "/proc/no"),
        (["--log-dir", "/proc/no"], "/proc/no"),
        (["--ssl-certificate", "no.pem", "--ssl-key", "no.pem"], "--ssl-certificate no.pem"),
        (["--ssl-certificate", "no.pem"], "go together"),
        (["--port", "http"], "--port: 'http' is not a number"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    tmp_path: Path, stack: ExitStack, options: list[str], told: str
) -> None:
    line = Api(tmp_path, stack, token="" if "/proc/no" in options else TOKEN).refuses(*options)
    assert told in line
    assert "s3cret" not in line


def test_an_empty_token_file_is_told(tmp_path: Path, stack: ExitStack) -> None:
    api = Api(tmp_path, stack)
    api.data.mkdir()
    (api.data / "cluster_token").touch()
    assert "cluster_token is empty" in api.refuses()
    (api.data / "cluster_token").write_bytes(b"\xff\xfe")
    assert "cluster_token" in api.refuses()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path, stack: ExitStack) -> None:
    api = Api(tmp_path, stack, token=TOKEN)
    api.data.mkdir()
    with closing(sqlite3.connect(api.data / "broadway.db")) as database:
        database.execute("PRAGMA user_version = 999")
    assert "schema version 999" in api.refuses()
    with closing(sqlite3.connect(api.data / "broadway.db")) as database:
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def certificate(directory: Path, *more: str) -> tuple[Path, Path]:
    """A self-signed certificate for the loopback address, and its key."""
    chain, key = directory / "chain.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "1", "-subj", "/CN=broadway"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(chain), "-keyout", str(key), *more]
    subprocess.run(command, check=True, capture_output=True)
    return chain, key


def test_tls(tmp_path: Path, stack: ExitStack) -> None:
    chain, key = certificate(tmp_path, "-nodes")
    api = Api(tmp_path, stack, "--ssl-certificate", str(chain), "--ssl-key", str(key), token=TOKEN)
    process = api.start()
    client = api.ready(process, scheme="https", verify=ssl.create_default_context(cafile=str(chain)))
    headers = {"Authorization": TOKEN}
    assert client.get("/api/v1/workers", headers=headers).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{api.port}/healthz")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://127.0.0.1:{api.port}/healthz")  # whose certificate nobody vouches for
    assert client.get("/api/v1/workers", headers=headers).status_code == 200
    assert process.stop(STOP_SECONDS) == 0
    assert f"https://127.0.0.1:{api.port}" in api.logs()


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(tmp_path: Path, stack: ExitStack) -> None:
    chain, key = certificate(tmp_path, "-passout", "pass:s3cret")
    api = Api(tmp_path, stack, token=TOKEN)
    assert "has a passphrase" in api.refuses("--ssl-certificate", str(chain), "--ssl-key", str(key))


def test_an_acknowledged_run_outlives_a_kill(tmp_path: Path, stack: ExitStack) -> None:
    api = Api(tmp_path, stack, token=TOKEN)
    process = api.start()
    client = api.ready(process)
    headers = {"Authorization": TOKEN}
    created = client.post("/api/v1/grading_run", json=run_config(3, pre=True), headers=headers).json()["data"]
    process.kill()
    client = api.ready(api.start())
    run = client.get(f"/api/v1/grading_run/{created['grading_run_id']}", headers=headers).json()["data"]
    assert (run["state"], run["counts"]["waiting"]) == ("ready", 4)


def test_help_names_every_variable(tmp_path: Path) -> None:
    shown = subprocess.run([sys.executable, ROOT / "api.py", "--help"], capture_output=True, text=True, check=True)
    assert len(set(re.findall(r"BROADWAY_[A-Z_]+", shown.stdout))) >= 16
    assert shown.stderr == ""


def test_a_fleet_that_comes_back_at_once_is_let_in(tmp_path: Path, stack: ExitStack) -> None:
    api = Api(tmp_path, stack, token=TOKEN)
    process = api.start()
    api.ready(process).close()
    process.send(signal.SIGSTOP)  # it takes no connection meanwhile
    fleet = [
        stack.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=START_SECONDS))
        for _ in range(500)
    ]
    for one in fleet:
        one.sendall(b"GET /readyz HTTP/1.1\r\nHost: here\r\n\r\n")
    process.send(signal.SIGCONT)
    assert {one.recv(15) for one in fleet} == {b"HTTP/1.1 200 OK"}


def test_more_connections_than_it_may_have_files_leave_it_calm(tmp_path: Path, stack: ExitStack) -> None:
    api = Api(tmp_path, stack, token=TOKEN)
    process = api.start()
    client = api.ready(process)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] in (65_536, most)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (120, 120))
    worker = client.post("/api/v1/worker_register", headers={"Authorization": TOKEN}).json()["data"]["worker_id"]
    poll = stack.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=START_SECONDS))
    head = f"GET /api/v1/grading_job HTTP/1.1\r\nHost: a\r\nAuthorization: {TOKEN}\r\nworker_id: {worker}\r\n"
    poll.sendall(f"{head}Prefer: wait=60\r\n\r\n".encode())

    deadline = time.monotonic() + START_SECONDS
    while "broadway_claim_seconds_count 1.0" not in client.get("/metrics", headers={"Authorization": TOKEN}).text:
        assert time.monotonic() < deadline, process.output()
        time.sleep(0.05)

    crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", api.port))) for _ in range(200)]
    crowd[0].settimeout(START_SECONDS)
    assert crowd[0].recv(1) == b""  # it has waited longest without asking for anything

    with httpx.Client(base_url=f"http://127.0.0.1:{api.port}") as newcomer:  # while the crowd stays
        deadline = time.monotonic() + START_SECONDS
        while not _answers(newcomer):
            assert time.monotonic() < deadline, process.output()
            time.sleep(0.05)
        headers = {"Authorization": TOKEN}
        answer = newcomer.post("/api/v1/grading_run", json=run_config(), headers=headers)
        assert answer.status_code == 200, answer.text  # the store has its files
        newcomer.post(f"/api/v1/grading_run/{answer.json()['data']['grading_run_id']}", headers=headers)
    assert poll.recv(15) == b"HTTP/1.1 200 OK", "who waits for an answer gets it"
    assert api.logs().count("connections are closed unheard: only 120 files may be open") == 1
    assert "Traceback" not in api.logs()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
