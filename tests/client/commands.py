"""The command as people run it: in this process for its answers, on a terminal of its own for what moves."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.client.serving import DEADLINE, ROOT, TOKEN, ApiProcess

COMMAND = [sys.executable, "-m", "broadway_client.cli"]


def environment(api: ApiProcess | None, home: Path, **more: str) -> dict[str, str]:
    """What a person's shell has, with the API's address and token if there is one."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("BROADWAY_", "XDG_"))}
    found |= {"PYTHONPATH": str(ROOT), "HOME": str(home), "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "40"}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        found.pop(name, None)
    if api is not None:
        found |= {"BROADWAY_API": api.url, "BROADWAY_TOKEN": TOKEN}
    return found | more


class Terminal:
    """A command on a pseudo terminal, for the length of a `with`."""

    def __init__(
        self, *words: str, cwd: Path, environment: Mapping[str, str], command: Sequence[str] = COMMAND
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
        self.written = b""
        self._child = subprocess.Popen(
            [*command, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(0),
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        os.close(self._master)

    @property
    def children(self) -> list[int]:
        """The processes that it has started."""
        found = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    @property
    def text(self) -> str:
        """All that was written, without colours and movements."""
        return re.sub(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z])", b"", self.written).decode(errors="replace")

    def until(self, wanted: str, seconds: float = DEADLINE) -> None:
        """Read until this stands on the screen, anywhere; fail after so many seconds."""
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            assert self._read() or wanted in self.text, self.text
            assert time.monotonic() < deadline, self.text

    def enter(self, text: str) -> None:
        """Type something."""
        data = text.encode()
        while data:
            data = data[os.write(self._master, data) :]

    def interrupt(self) -> None:
        """Ctrl-C, as the terminal does it."""
        os.write(self._master, b"\x03")

    def stop(self) -> None:
        """SIGTERM."""
        self._child.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code, with all that it wrote."""
        deadline = time.monotonic() + DEADLINE
        while self._read():
            assert time.monotonic() < deadline, self.text
        return self._child.wait(DEADLINE)

    def _read(self) -> bool:
        """Take what has come; whether there may be more."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._master, 65_536)
        except OSError as error:
            if error.errno == errno.EIO:  # nobody has the other side any more
                return False
            raise
        self.written += data
        return bool(data)


def _take_terminal(file: int) -> None:
    fcntl.ioctl(file, termios.TIOCSCTTY, 0)


def run(
    *words: str, cwd: Path, environment: Mapping[str, str], stdin: str = "", check: int = 0
) -> subprocess.CompletedProcess[str]:
    """A command whose answer is piped; it must exit with `check`, and never show a traceback."""
    done = subprocess.run(
        [*COMMAND, *words],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=dict(environment),
        timeout=DEADLINE,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == check, (done.returncode, done.stdout, done.stderr)
    return done


def lines(text: str) -> Sequence[Sequence[str]]:
    """A piped table, cell by cell."""
    return [line.split("\t") for line in text.splitlines()]
