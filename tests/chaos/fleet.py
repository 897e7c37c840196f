"""Every process of a campaign: started, restarted whenever it has ended, and in the end stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from broadway_client.cli.processes import Process, free_port, start
from tests import services
from tests.chaos.proxy import CALM, Link
from tests.chaos.schedule import HEARTBEAT, LEASE

TOKEN = "chaos-cluster-token-of-nobody"
ROOT = Path(__file__).parents[2]
JOB_MAX_ATTEMPTS = 3
#: Seconds that a process may take to end after SIGTERM.
GOODBYE = 45.0
#: Seconds that the fleet may take to come up.
READY_SECONDS = 60.0
_TICK = 0.1


class Managed:
    """A process that is started again whenever it has ended, as an init system would do."""

    def __init__(self, name: str, launch: Callable[[int], Process], *, tolerated: Sequence[str] = ()) -> None:
        """`launch` is given the number of the start. `tolerated`: words in its output that excuse an early end."""
        self.name = name
        self.starts = 0
        self.problems: list[str] = []
        self._launch = launch
        self._tolerated = tolerated
        self._process: Process | None = None
        self._not_before = 0.0
        self._asked_to_end_at: float | None = None
        self._killed = False
        self._output_seen = 0

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        return self._process.pid if self._process and self._process.exit_code is None else None

    def kill(self, seconds: float) -> bool:
        """kill -9; not started again for so long. Returns whether there was anything to kill."""
        if self.pid is None or self._process is None:
            return False
        self._killed = True
        self._not_before = time.monotonic() + seconds
        self._process.kill()
        return True

    def freeze(self, seconds: float) -> bool:
        """SIGSTOP, and SIGCONT after so long."""
        process = self._process
        if self.pid is None or process is None:
            return False
        process.send(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(seconds, process.send, signal.SIGCONT)
        return True

    def terminate(self, seconds: float) -> bool:
        """SIGTERM; not started again until it has ended, and then for so long."""
        if self.pid is None or self._process is None:
            return False
        if self._asked_to_end_at is None:
            self._asked_to_end_at = time.monotonic()
            self._not_before = time.monotonic() + seconds
            self._process.send(signal.SIGTERM)
        return True

    def thaw(self) -> None:
        """SIGCONT, in case it is frozen."""
        if self._process is not None:
            self._process.send(signal.SIGCONT)

    def look(self, *, restart: bool) -> None:
        """Judge an end, and start again if it is time to."""
        if self._process is not None:
            code = self._process.exit_code
            if code is None:
                if self._asked_to_end_at is not None and time.monotonic() - self._asked_to_end_at > GOODBYE:
                    self.problems.append(f"{self.name} did not end within {GOODBYE:g} s of SIGTERM")
                    self.kill(0)
                return
            self._judge(code)
            self._process = None
        if restart and time.monotonic() >= self._not_before:
            self._killed, self._asked_to_end_at = False, None
            self.starts += 1
            self._process = self._launch(self.starts)

    def _judge(self, code: int) -> None:
        assert self._process is not None
        output = self._process.output()[self._output_seen :]
        self._output_seen += len(output)
        if self._killed or any(word in output for word in self._tolerated):
            return
        # -15: asked before it had come so far as to listen for it.
        expected = (0, -signal.SIGTERM) if self._asked_to_end_at is not None else ()
        if code not in expected:
            self.problems.append(f"{self.name} ended with status {code}:\n{output[-2000:]}")
            self._not_before = time.monotonic() + 0.5


class Fleet:
    """APIs, graders and their links, on a store that is somebody else's."""

    def __init__(
        self,
        directory: Path,
        seed: str,
        *,
        store_url: str,
        apis: int,
        fake_graders: int,
        docker_graders: int,
        noted: Counter[str],
    ) -> None:
        self.directory = directory
        self.api_ports = {f"api-{number}": free_port() for number in range(apis)}
        self.links = {
            name: Link(name, lambda: [*self.api_ports.values()], seed, noted)
            for name in (
                *(f"grader-{number}" for number in range(fake_graders)),
                *(f"docker-{number}" for number in range(docker_graders)),
                "courses",
            )
        }
        self.noted = noted
        self.processes: dict[str, Managed] = {}
        self._store_url = store_url
        self._lifetimes = contextlib.AsyncExitStack()

    @property
    def graders(self) -> Mapping[str, Managed]:
        return {name: process for name, process in self.processes.items() if name in self.links}

    @property
    def apis(self) -> Mapping[str, Managed]:
        return {name: process for name, process in self.processes.items() if name in self.api_ports}

    async def __aenter__(self) -> Fleet:
        for link in self.links.values():
            await self._lifetimes.enter_async_context(link)
        for name in self.api_ports:
            # An API that finds no primary when it starts says so and ends; whoever runs it starts it again.
            self.processes[name] = Managed(name, self._launcher_of_api(name), tolerated=("store is unavailable",))
        for name in self.links:
            if name != "courses":
                self.processes[name] = Managed(name, self._launcher_of_grader(name))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for process in self.processes.values():
            process.kill(0)
        await self._lifetimes.aclose()

    def look(self) -> None:
        """One round of the supervisor."""
        for process in self.processes.values():
            process.look(restart=True)

    async def supervise(self) -> None:
        """Start everything, and again whatever ends; until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_TICK)

    async def until_ready(self) -> None:
        """Wait until every grader has registered. Raises TimeoutError."""
        url = f"http://127.0.0.1:{self.links['courses'].port}/api/v1/workers"
        deadline = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient(headers={"Authorization": TOKEN}) as http:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    answer = await http.get(url)
                    if answer.is_success and len(answer.json()["data"]["workers"]) >= len(self.graders):
                        return
                await asyncio.sleep(_TICK)
        ends = (f"{path.name}:\n{path.read_text(errors='replace')[-1500:]}" for path in self.directory.glob("*.out"))
        raise TimeoutError("the fleet does not come up\n" + "\n".join(ends))

    def heal(self) -> None:
        """End every fault that lasts."""
        for link in self.links.values():
            link.is_cut = False
            link.weather = CALM
        for process in self.processes.values():
            process.thaw()

    async def cut_off(self, name: str, seconds: float) -> None:
        """Take a process's network away for so long."""
        link = self.links[name]
        link.is_cut = True
        link.hang_up()
        await asyncio.sleep(seconds)
        link.is_cut = False

    async def stop(self, processes: Mapping[str, Managed]) -> None:
        """SIGTERM and wait for the end of each; those that do not end go into their problems."""
        for process in processes.values():
            process.terminate(0)
        while any(process.pid is not None for process in processes.values()):
            for process in processes.values():
                process.look(restart=False)
            await asyncio.sleep(_TICK)
        for process in processes.values():
            process.look(restart=False)

    def work(self, grader: str) -> Path:
        """A grader's work directory."""
        return self.directory / grader

    def _launcher_of_api(self, name: str) -> Callable[[int], Process]:
        def launch(_: int) -> Process:
            return self._start(
                name,
                [ROOT / "api.py", "--port", str(self.api_ports[name]), "--data-dir", self.directory / name],
                BROADWAY_STORE=self._store_url,
                BROADWAY_HEARTBEAT_INTERVAL=str(HEARTBEAT),
                BROADWAY_LEASE_SECONDS=str(LEASE),
                BROADWAY_JOB_MAX_ATTEMPTS=str(JOB_MAX_ATTEMPTS),
                BROADWAY_QUARANTINE_SECONDS="1",
            )

        return launch

    def _launcher_of_grader(self, name: str) -> Callable[[int], Process]:
        kind, slots = ("docker", 1) if name.startswith("docker") else ("fake", 4)

        def launch(number: int) -> Process:
            return self._start(
                name,
                [
                    *("-m", "tests.chaos.grader", self.directory / f"{name}.record", f"{name}/{number}", kind),
                    *("--api", f"http://127.0.0.1:{self.links[name].port}", "--slots", str(slots)),
                    *("--work-dir", self.work(name), "--poll-wait", "5"),
                ],
            )

        return launch

    def _start(self, name: str, command: Sequence[str | Path], **settings: str) -> Process:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BROADWAY_")}
        environment |= {
            "BROADWAY_TOKEN": TOKEN,
            "PYTHONPATH": str(ROOT),
            "BROADWAY_SELF_TEST_AT_START": "never",
        } | settings
        return start([sys.executable, *command], log=self.directory / f"{name}.out", environment=environment)


def mongod(directory: Path, port: int) -> Callable[[int], Process]:
    """Starts a node of a replica set, again and again on the same data."""
    directory.mkdir()

    def launch(_: int) -> Process:
        return start(
            [
                *(services.mongod_binary(), "--dbpath", directory, "--bind_ip", "127.0.0.1", "--port", str(port)),
                *("--wiredTigerCacheSizeGB", "0.25", "--nounixsocket", "--replSet", services.REPLICA_SET),
                *("--oplogSize", "64", "--setParameter", "diagnosticDataCollectionEnabled=false"),
            ],
            log=directory / "mongod.log",
        )

    return launch
