"""Child processes that do not outlive the program that started them, unless they are to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

#: prctl(2): the signal a process gets when the thread that started it ends, however it ends.
_PR_SET_PDEATHSIG = 1

#: Below Linux's range of ephemeral ports (32768 and up), so that no outgoing connection takes a port between our
#: finding it free and our child's listening on it.
_PORTS = range(20_000, 32_000)


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    outlives_us: bool = False,
) -> Process:
    """Start `command` with stdout and stderr in `log` (appended).

    It is killed should this process be killed, unless it is meant to outlive us and our terminal. Call it from the main
    thread: the kernel ties the child's life to the thread that started it. The child leads a process group of its own,
    so a Ctrl-C at the terminal is this program's to handle, not the child's.
    """
    with log.open("ab") as output:
        return Process(
            subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                preexec_fn=_prepare(tied=not outlives_us),
                start_new_session=outlives_us,
                process_group=None if outlives_us else 0,  # a session's leader leads a group
            ),
            log,
        )


class Process:
    """A running child and the file of its output."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self._child = child
        self.log = log

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number where one ended it."""
        return self._child.poll()

    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; does nothing once it has ended."""
        self._child.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit code; TimeoutError if it has not ended after `seconds`."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"process {self.pid} still runs after {seconds} s") from None

    def stop(self, seconds: float) -> int:
        """Ask it to end (SIGTERM), kill it after `seconds`; its exit code."""
        self.send(signal.SIGTERM)
        try:
            return self.wait(seconds)
        except TimeoutError:
            return self.kill()

    def kill(self) -> int:
        """Kill it and what it left in its process group; its exit code."""
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended by itself
            os.killpg(self.pid, signal.SIGKILL)
        return self._child.wait()


def free_port() -> int:
    """A TCP port of the loopback interface on which nothing listens."""
    for port in random.sample(_PORTS, k=len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _prepare(*, tied: bool) -> Callable[[], None]:
    """What the child does between fork and exec, where only plain calls are safe: all else is looked up here."""
    # Only Linux ties a child's life to its parent's.
    libc = ctypes.CDLL(None) if tied and sys.platform == "linux" else None
    parent = os.getpid()

    def prepare() -> None:
        # A shell without job control has background commands ignore SIGINT, and that is inherited.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it ended before the call above
                os._exit(1)

    return prepare
