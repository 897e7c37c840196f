"""`scripts/start_run_script.py`, run as people run it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broadway_client.cli.processes import free_port, start
from tests.e2e.classes import run_config, stage
from tests.e2e.fleet import ROOT, TOKEN, Fleet

SCRIPT = ROOT / "scripts" / "start_run_script.py"
RUN_ID = re.compile(r"[0-9a-f]{24}\n")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run of one student who passes."""
    return write(tmp_path, run_config("true"))


def write(directory: Path, content: object) -> Path:
    path = directory / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def script(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # -S -E: no site-packages. The script is copied to places that have nothing but Python.
    command = [sys.executable, "-S", "-E", str(SCRIPT), *map(str, arguments)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**inherited, **(environment or {})}, cwd="/"
    )


def test_it_prints_the_id_of_a_started_run_and_nothing_else(fleet: Fleet, config: Path) -> None:
    done = script("--url", fleet.url, config, TOKEN)

    assert (done.returncode, done.stderr) == (0, "")
    assert RUN_ID.fullmatch(done.stdout)
    assert fleet.client.run(done.stdout.strip())["state"] == "students"


def test_host_port_and_token_may_come_from_the_environment(fleet: Fleet, config: Path) -> None:
    api = urlsplit(fleet.url)
    given = {"BROADWAY_HOST": str(api.hostname), "BROADWAY_PORT": str(api.port), "BROADWAY_TOKEN": TOKEN}
    assert script(config, environment=given).returncode == 0
    elsewhere = {**given, "BROADWAY_PORT": str(free_port()), "BROADWAY_TOKEN": "wrong"}
    assert script("--port", api.port, config, TOKEN, environment=elsewhere).returncode == 0


def test_waiting_ends_with_0_only_if_the_run_finished(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_grader(runtime="sandbox")
    done = script("--wait", "--url", fleet.url, write(tmp_path, run_config("true", "exit 1")), TOKEN)
    assert done.returncode == 0, "a failing student does not fail the run"
    assert "finished: 1 succeeded, 1 failed" in done.stderr

    failing = run_config("true", pre_processing_pipeline=[stage("exit 1")])
    done = script("--wait", "--url", fleet.url, write(tmp_path, failing), TOKEN)
    assert done.returncode == 1
    assert "failed: 1 failed, 1 cancelled" in done.stderr
    assert RUN_ID.fullmatch(done.stdout)


@pytest.mark.parametrize(
    ("content", "complaints"),
    [
        ('{"students": [}', ["not JSON", "line 1, column 15"]),
        ({"students": [], "student_pipeline": [{}], "x": 1}, ["$.students", "$.student_pipeline[0]", "image", "x"]),
        (run_config("true", stages=[stage("true", env={"A": "$NOBODY"})]), ["NOBODY"]),
    ],
)
def test_a_bad_config_is_refused_with_its_faults(
    fleet: Fleet, tmp_path: Path, content: object, complaints: list[str]
) -> None:
    done = script("--url", fleet.url, write(tmp_path, content), TOKEN)

    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    for complaint in complaints:
        assert complaint in done.stderr


def test_a_wrong_token_a_missing_file_and_a_missing_token_end_with_2(fleet: Fleet, config: Path) -> None:
    for arguments, complaint in (
        ((config, "wrong"), "token"),
        ((config.with_name("nowhere.json"), TOKEN), "nowhere.json: No such file"),
        ((config,), "BROADWAY_TOKEN"),
    ):
        done = script("--url", fleet.url, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


def test_an_api_that_is_not_there_ends_with_3(config: Path) -> None:
    done = script("--port", free_port(), "--patience", "1", config, TOKEN)

    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1


def test_waiting_survives_a_restart_of_the_api(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_grader(runtime="sandbox", slots=1)
    config = write(tmp_path, run_config("sleep 1; true", "sleep 1; true", "sleep 1; true"))
    log = tmp_path / "script.out"
    waiting = start([sys.executable, SCRIPT, "--wait", "--url", fleet.url, config, TOKEN], log=log)
    try:
        # It looks once a second: on a busy machine it may see the first student's end together with the second's.
        fleet.wait_for(lambda: re.search("[12] succeeded", waiting.output()), "the first student", waiting)
        assert fleet.api is not None
        fleet.api.kill()
        await_unanswered(fleet.url, b"GET /api/v1/grading_run/")  # the script has noticed
        fleet.start_api()
        assert waiting.wait(60) == 0, waiting.output()
    finally:
        waiting.kill()
    assert "finished: 3 succeeded" in waiting.output()


def test_a_lost_answer_creates_no_second_run(fleet: Fleet, config: Path) -> None:
    with cutting_proxy(fleet.url, cut=2) as url:
        done = script("--url", url, config, TOKEN)

    assert done.returncode == 0, done.stderr
    (run,) = fleet.client.get("grading_run")["grading_runs"]
    assert run["grading_run_id"] == done.stdout.strip()
    assert run["state"] == "students"


def await_unanswered(url: str, request: bytes) -> None:
    """Listen in the API's place, hanging up on everybody, until somebody has sent such a request."""
    heard = b""
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))) as listener:
        while not heard.startswith(request):
            client, _ = listener.accept()
            with client:
                heard = client.recv(65536)


@contextmanager
def cutting_proxy(url: str, cut: int) -> Iterator[str]:
    """Passes requests on to `url`; the odd ones of the first 2 * `cut` are carried out, but their answers are lost."""
    target = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", free_port()))

    def serve() -> None:
        count = 0
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed: the test is over
            count += 1
            with client, socket.create_connection((str(target.hostname), int(target.port or 80))) as api:
                thread = threading.Thread(target=_copy, args=(client, api), daemon=True)
                thread.start()
                with api.makefile("rb") as stream:
                    answer = stream.read()
                if count > 2 * cut or count % 2 == 0:
                    client.sendall(answer)
                client.shutdown(socket.SHUT_RDWR)
                thread.join(5)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        server.join(5)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either side may hang up at any time
        while data := source.recv(65536):
            target.sendall(data)
