"""HTTPS from end to end: a private authority, graders and clients that trust it, and those that do not."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from broadway_client.cli.processes import Process, free_port, start
from tests.services import ROOT

SECONDS = 60.0
TOKEN = "tls-cluster-token"
CONFIG = {
    "students": [{"NET_ID": "amy"}],
    "student_pipeline": [{"image": "none", "entry_point": ["sh", "-c", "echo $NET_ID"]}],
}


def says(process: Process, text: str) -> None:
    """Wait until its output has that text."""
    deadline = time.monotonic() + SECONDS
    while text not in process.output():
        assert process.exit_code is None, process.output()
        assert time.monotonic() < deadline, process.output()
        time.sleep(0.05)


class PlainServer(socketserver.BaseRequestHandler):
    """Answers whatever it is sent in plain HTTP, as nginx does where it has no certificate."""

    def handle(self) -> None:
        self.request.recv(1)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Place:
    """An API with a certificate of a private authority, a server without one, and what speaks to them."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
        self._environment |= {"BROADWAY_TOKEN": TOKEN}
        self.authority, self.stranger = self._authority("ca"), self._authority("stranger")
        chain, key = self._certificate()
        self.https = self._api("--ssl-certificate", str(chain), "--ssl-key", str(key))
        plain = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), PlainServer))
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        stack.callback(plain.shutdown)
        self.http = f"http://127.0.0.1:{plain.server_address[1]}"
        self.config = directory / "run.json"
        self.config.write_text(json.dumps(CONFIG))

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self._directory)

    def _authority(self, name: str) -> Path:
        new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}")
        self._openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.pem")
        return self._directory / f"{name}.pem"

    def _certificate(self) -> tuple[Path, Path]:
        (self._directory / "names").write_text("subjectAltName=IP:127.0.0.1")
        self._openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=api", "-keyout", "api.key", "-out", "api.csr"
        )
        signed = ("x509", "-req", "-in", "api.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        self._openssl(*signed, "-days", "1", "-extfile", "names", "-out", "api.pem")
        return self._directory / "api.pem", self._directory / "api.key"

    def _api(self, *options: str) -> str:
        url = f"https://127.0.0.1:{free_port()}"
        data = str(self._directory / "data")
        says(self._start("api.py", "--port", url.rpartition(":")[2], "--data-dir", data, *options), f"on {url}")
        return url

    def _start(self, program: str, *arguments: str) -> Process:
        log = self._directory / f"output-{len(list(self._directory.glob('output-*')))}"
        process = start([sys.executable, ROOT / program, *arguments], log=log, environment=self._environment)
        self._stack.callback(process.kill)
        return process

    def grader(self, url: str, *options: str) -> Process:
        """A grader that runs stages in the sandbox."""
        work = self._directory / f"work-{len(list(self._directory.glob('work-*')))}"
        work.mkdir()
        return self._start("grader.py", "--api", url, "--runtime", "sandbox", "--work-dir", str(work), *options)

    def script(self, url: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`start_run_script.py` to its end."""
        command = [sys.executable, str(ROOT / "scripts/start_run_script.py"), str(self.config), "--url", url, *options]
        return subprocess.run(
            command, env=self._environment | environment, capture_output=True, text=True, timeout=SECONDS * 3
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path_factory.mktemp("tls"), stack)


def test_a_run_over_https_with_a_private_authority(place: Place) -> None:
    grader = place.grader(place.https, "--ca-certificate", str(place.authority))
    ended = place.script(place.https, "--wait", SSL_CERT_FILE=str(place.authority))
    assert ended.returncode == 0, ended.stderr + grader.output()


@pytest.mark.parametrize(
    ("scheme", "told"),
    [
        ("stranger", "the API's certificate is not trusted: "),
        ("http to https", "the connection was closed without an answer: "),
        ("https to http", "the API does not speak HTTPS: "),
    ],
)
def test_a_grader_that_does_not_agree_on_tls_says_so_in_one_line(place: Place, scheme: str, told: str) -> None:
    url, options = {
        "stranger": (place.https, ["--ca-certificate", str(place.stranger)]),
        "http to https": (place.https.replace("https:", "http:"), []),
        "https to http": (place.http.replace("http:", "https:"), []),
    }[scheme]
    grader = place.grader(url, *options)
    says(grader, told)
    assert "Traceback" not in grader.output()
    assert TOKEN not in grader.output()


def test_a_script_that_does_not_agree_on_tls_says_so_in_one_line(place: Place) -> None:
    for ended, told in (
        (place.script(place.https, SSL_CERT_FILE=str(place.stranger)), "is not trusted: "),
        (place.script(place.http.replace("http:", "https:")), "does not speak HTTPS"),
        (place.script(place.https.replace("https:", "http:"), "--patience", "1"), "write https:// in --url"),
    ):
        assert ended.returncode in (2, 3)
        assert told in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
        assert ended.stdout == ""
