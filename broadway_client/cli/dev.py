"""An API on its embedded store and one grader, as children of this process: what `broadway dev` runs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import httpx
from rich.text import Text

from broadway_client.cli.output import Output, one_line
from broadway_client.cli.processes import Process, free_port, start
from broadway_client.client import Client
from broadway_client.errors import ClientError

#: Seconds that either may take to be ready, and to stop.
_READY, _STOP = 120.0, 15.0
_LOOK_EVERY = 0.1

#: Lines of the log that a person at a terminal has no use for; the files in <data dir>/logs have all of them.
_REQUEST = " INFO broadway_api.handlers.base: "
#: What is told once both are ready.
_TOLD_ELSEWHERE = ("cluster token: ", "(kept in ")
#: What this command itself has decided, see `_start`.
_DECIDED = " WARNING broadway_grader.attacks.self_test: no self-test is made"

#: Of the config that a newcomer begins with: an engine that cannot have it would fail every first run.
STARTER_IMAGE = "python:3.12-slim"

#: What runs the stages, for people.
_RUNTIMES = {
    "docker": "in containers of the Docker engine",
    "sandbox": "in sandboxes: images are ignored, and this machine's programs are used",
}

_COLOURS = {"api": "cyan", "grader": "magenta"}


class DevelopmentFault(Exception):
    """What has ended it, in one line."""


class _Stopped(Exception):
    """Ctrl-C, or SIGTERM."""


class Development:
    """Both programs, their output, and what a person needs to know of them."""

    def __init__(self, *, programs: Path, port: int, data_dir: Path, runtime: str, slots: int, output: Output) -> None:
        self._programs = programs
        self._data = data_dir
        self._port = port or free_port()
        self._runtime = runtime
        self._slots = slots
        self._output = output
        self._children: dict[str, Process] = {}
        self._read: dict[str, int] = {}
        self._asked_to_stop = 0
        self._chosen = ""  # the grader's runtime

    @property
    def url(self) -> str:
        """The API's."""
        return f"http://127.0.0.1:{self._port}"

    def run(self) -> None:
        """Run until Ctrl-C. Raises DevelopmentFault if one of them cannot start, or ends."""
        with ExitStack() as stack, self._signals():
            try:
                self._start(stack, "api", "--port", str(self._port), "--data-dir", str(self._data))
                self._until(self._api_is_ready)
                token = self._token()
                work = ("--work-dir", str(self._data / "work"), "--api", self.url, "--job-bound", "watch")
                options = ["--runtime", self._runtime, "--slots", str(self._slots)]
                if self._runtime == "auto":
                    options += ["--auto-image", STARTER_IMAGE]
                self._start(stack, "grader", *work, *options, token=token)
                self._until(lambda: self._grader_is_ready(token))
                self._say_how(token)
                while True:
                    self._look()
            except _Stopped:
                self._output.aside("\nstopping; Ctrl-C again stops what is being graded, too")
                self._stop()

    def _start(self, stack: ExitStack, name: str, *options: str, token: str = "") -> None:
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            log = self._data / f"dev-{name}.out"
            log.write_bytes(b"")
        except OSError as error:
            raise DevelopmentFault(f"{self._data} cannot be used: {error.strerror}") from error
        # The environment's BROADWAY_… are options of both programs; the token goes this way, since `ps` shows flags.
        environment = dict(os.environ) | ({"BROADWAY_TOKEN": token} if token else {})
        # One's own code on one's own machine: a newcomer need not wait for images to attack it with.
        environment.setdefault("BROADWAY_SELF_TEST_AT_START", "never")
        command = [sys.executable, str(self._programs / f"{name}.py"), *options]
        child = start(command, log=log, environment=environment)
        self._children[name], self._read[name] = child, 0
        stack.callback(child.stop, _STOP)  # which is nothing to one that has ended

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY
        while not condition():
            self._look()
            if time.monotonic() > deadline:
                raise DevelopmentFault(f"it is not ready after {_READY:.0f} s; see {self._data}/logs")

    def _api_is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", trust_env=False, timeout=5).is_success
        except httpx.TransportError:
            return False

    def _grader_is_ready(self, token: str) -> bool:
        try:
            with Client(self.url, token, patience=0) as client:
                alive = [worker for worker in client.workers() if worker.state.value == "alive"]
        except ClientError:
            return False
        self._chosen = alive[0].runtime if alive else ""
        return bool(alive)

    def _token(self) -> str:
        if os.environ.get("BROADWAY_TOKEN"):
            return os.environ["BROADWAY_TOKEN"]
        try:
            lines = (self._data / "cluster_token").read_text().split("\n")
        except OSError as error:
            raise DevelopmentFault(f"the API's token cannot be read: {error}") from error
        return next(line.strip() for line in lines if line.strip() and not line.startswith("#"))

    def _say_how(self, token: str) -> None:
        say = self._output.line
        say()
        say(Text("Broadway is ready.", style="bold green"))
        say(f"  open    {self.url}/   the dashboard; log in with the token")
        say(f"  API     {self.url}   described at {self.url}/docs")
        say(f"  token   {token}")
        say(f"  stages  run {_RUNTIMES.get(self._chosen, self._chosen)}")
        say("In another terminal:")
        if self._data != Path("data") or self._port != 1470 or os.environ.get("BROADWAY_TOKEN"):
            say(f"  export BROADWAY_API={self.url} BROADWAY_TOKEN={token}")
        else:
            say(f"  cd {Path.cwd()}   # or: export BROADWAY_TOKEN={token}")
        say("  broadway config init")
        say("  broadway run submit grading_run.jsonc --watch")
        say("Ctrl-C stops it; everything is kept.")
        say()

    def _look(self) -> None:
        """Show what has been printed, see that both are there, and wait a moment. Raises _Stopped after Ctrl-C."""
        time.sleep(_LOOK_EVERY)
        if self._asked_to_stop:
            raise _Stopped
        for name, child in self._children.items():
            code = child.exit_code  # before its output: all of that is then there
            self._show(name, child)
            if code is not None:
                hint = "; --port 0 takes a free port" if "cannot listen on" in child.output() else ""
                raise DevelopmentFault(f"the {name} has ended with exit code {code}; see above{hint}")

    def _show(self, name: str, child: Process) -> None:
        with child.log.open("rb") as stream:
            stream.seek(self._read[name])
            *lines, rest = stream.read().split(b"\n")
            self._read[name] = stream.tell() - len(rest)
        for line in lines:
            text = line.decode(errors="replace")
            if text.startswith(_TOLD_ELSEWHERE) or _REQUEST in text or _DECIDED in text:
                continue
            self._output.line(Text(f"{name:6} │ ", style=_COLOURS[name]), one_line(text, 2_000))

    def _stop(self) -> None:
        """The grader first: it still has to say goodbye to the API. A second Ctrl-C hurries it."""
        for name in ("grader", "api"):
            child = self._children.get(name)
            if child is None or child.exit_code is not None:
                continue
            child.send(signal.SIGTERM)
            asked = self._asked_to_stop
            deadline = time.monotonic() + (10 * _STOP if name == "grader" else _STOP)
            while child.exit_code is None and time.monotonic() < deadline:
                time.sleep(_LOOK_EVERY)
                self._show(name, child)
                if self._asked_to_stop > asked:
                    asked = self._asked_to_stop
                    child.send(signal.SIGTERM)
                    deadline = min(deadline, time.monotonic() + _STOP)
        self._output.aside("stopped")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Count Ctrl-C and SIGTERM while the block lasts; whoever loops looks."""

        def count(number: int, frame: FrameType | None) -> None:
            self._asked_to_stop += 1

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
