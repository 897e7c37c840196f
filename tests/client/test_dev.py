"""`broadway dev`, as a newcomer meets it."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

from broadway_client.cli import configs
from broadway_client.cli.dev import STARTER_IMAGE
from broadway_client.cli.processes import free_port
from tests.client.commands import Terminal, environment, run


def test_from_nothing_to_the_cause_of_a_failure(tmp_path: Path) -> None:
    env = environment(None, tmp_path)
    port = free_port()
    there = env | {"BROADWAY_API": f"http://127.0.0.1:{port}"}  # the token is found in this directory
    words = ("dev", "--port", str(port), "--runtime", "sandbox", "--slots", "2")
    with Terminal(*words, cwd=tmp_path, environment=env) as terminal:
        terminal.until("Broadway is ready.")
        terminal.until("Ctrl-C stops it")
        token = (tmp_path / "data" / "cluster_token").read_text().strip()
        assert f"token   {token}" in terminal.text
        run("config", "init", cwd=tmp_path, environment=there)
        watched = run("run", "submit", "grading_run.jsonc", "--watch", cwd=tmp_path, environment=there)
        assert "finished: 3 succeeded, 1 failed" in watched.stdout
        told = run("run", "report", "latest", cwd=tmp_path, environment=there).stdout
        assert "ValueError: invalid literal for int() with base 10: 'forty-two'" in told
        assert "eve" in told
        terminal.interrupt()
        assert terminal.wait() == 0
        assert "deregistered" in terminal.text
        assert terminal.text.rstrip().endswith("stopped")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))  # nobody listens any more


def test_neither_is_left_without_the_other(tmp_path: Path) -> None:
    port = free_port()
    words = ("dev", "--port", str(port), "--runtime", "sandbox", "--slots", "1")
    with Terminal(*words, cwd=tmp_path, environment=environment(None, tmp_path)) as terminal:
        terminal.until("Ctrl-C stops it")
        api, grader = terminal.children
        os.kill(grader, signal.SIGKILL)
        assert terminal.wait() == 1
        assert "the grader has ended with exit code -9" in terminal.text
        assert not Path(f"/proc/{api}").exists()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("dev", "--port", str(port), cwd=tmp_path, environment=environment(None, tmp_path), check=1)
    assert f"cannot listen on 127.0.0.1:{port}" in done.stdout
    assert "the api has ended with exit code 2; see above; --port 0 takes a free port" in done.stderr


def test_a_newcomers_config_has_the_image_that_decides_on_the_runtime() -> None:
    starter = (Path(configs.__file__).parent / "starter.jsonc").read_text()
    assert set(re.findall(r'"image": "([^"]+)"', starter)) == {STARTER_IMAGE}
