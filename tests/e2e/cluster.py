"""Three APIs on one database behind the nginx of `deploy/`, which is all that anybody speaks to."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

import httpx

from broadway_client.cli.processes import Process, free_port, start
from tests import services
from tests.e2e.fleet import ROOT, Fleet

CONFIG = ROOT / "deploy" / "nginx.conf"


def start_nginx(directory: Path, port: int, upstreams: Sequence[int]) -> Process:
    """Our nginx, as `docs/operations.md` says it is started, but for its ports."""
    directory.mkdir()
    text = CONFIG.read_text()
    for given, wanted in zip((1470, 1471, 1472, 1473), (port, *upstreams), strict=True):
        text = re.sub(rf"^(\s+(?:listen |server 127\.0\.0\.1:)){given}\b", rf"\g<1>{wanted}", text, flags=re.MULTILINE)
    config = directory / "nginx.conf"
    config.write_text(text)
    command: list[str | Path] = [
        services.nginx_binary(),
        "-e",
        "stderr",
        "-p",
        directory,
        "-c",
        config,
        "-g",
        "daemon off;",
    ]
    return start(command, log=directory / "nginx.out")


class Cluster(Fleet):
    """A fleet whose URL is nginx's."""

    def __init__(self, directory: Path, store_url: str) -> None:
        super().__init__(directory, store_url)
        self.ports = [free_port() for _ in range(3)]
        self.apis: list[Process] = []
        self.nginx: Process | None = None

    def open(self) -> None:
        """Start the three APIs and nginx, and wait until they answer."""
        self.apis = [self._start_numbered(number) for number in range(3)]
        self.nginx = start_nginx(self.directory / "nginx", int(self.url.rpartition(":")[2]), self.ports)
        for number in range(3):
            self._await_api(number)
        self.wait_for(lambda: self._is_up(self.url), "nginx to answer", self.nginx)

    def restart_api(self, number: int) -> None:
        """Start an API again that has ended, and wait until it answers."""
        self.apis[number] = self._start_numbered(number)
        self._await_api(number)

    def dismiss(self, *names: str) -> None:
        """Stop graders gently, all at once."""
        for name in names:
            self.graders[name].send(signal.SIGTERM)
        for name in names:
            assert self.graders.pop(name).wait(30) == 0, self.output()

    def written(self) -> str:
        """All that any process has written."""
        return "".join(log.read_text(errors="replace") for log in self.directory.glob("*.out"))

    def kill(self) -> None:
        """Kill every process."""
        for process in (*self.apis, *([self.nginx] if self.nginx else [])):
            process.kill()
        super().kill()

    def _start_numbered(self, number: int) -> Process:
        data = self.directory / f"data-{number}"
        return self._start("api", "--port", str(self.ports[number]), "--data-dir", str(data), log=f"api-{number}")

    def _await_api(self, number: int) -> None:
        url = f"http://127.0.0.1:{self.ports[number]}"
        self.wait_for(lambda: self._is_up(url), f"API {number} to answer", self.apis[number])

    @staticmethod
    def _is_up(url: str) -> bool:
        try:
            return httpx.get(f"{url}/healthz", timeout=5).is_success
        except httpx.TransportError:
            return False
