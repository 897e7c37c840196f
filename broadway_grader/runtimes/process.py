"""One running bwrap: its end awaited without a thread, its whole tree killed without a doubt."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

#: Seconds that a tree may take to go once its first process was killed.
KILL_GRACE = 10.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Make this process the parent of what its children leave behind.

    bwrap ends without reaping the first process of the namespace it made. Reaped by us it tells what the stage used;
    and where the machine's own init is none (in a container, say) nobody else would reap it at all.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class BwrapProcess:
    """A bwrap that reports to a pipe, and the process tree below it.

    Everything in the sandbox lives in one pid namespace. Its first process is what is killed: the kernel then ends all
    others, however they were forked, before that one counts as ended.
    """

    def __init__(self, command: Sequence[str], pass_fds: Sequence[int], status: int, *, keep_output: bool) -> None:
        """Start it, from the thread of the event loop: it dies with the very thread that started it.

        `status` is the reading end of the pipe for bwrap's report (`--json-status-fd`); this object closes it.
        """
        output = subprocess.PIPE if keep_output else subprocess.DEVNULL
        self._loop = asyncio.get_running_loop()
        self._status = status
        self._report = b""
        self._first: int | None = None  # a pidfd of the namespace's first process …
        self._first_pid = 0  # … and its number outside
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            bufsize=0,
            env={},
            cwd="/",
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._ended = os.pidfd_open(self._process.pid)
        self.exit_code: int | None = None  # of the main process; None if bwrap never got to running it
        self.memory_peak: int | None = None  # bytes, of the largest process
        self.cpu_seconds: float | None = None
        os.set_blocking(status, False)
        self._loop.add_reader(status, self._read_status)

    @property
    def streams(self) -> list[int]:
        """The reading ends of stdout and stderr, if output is kept."""
        return [stream.fileno() for stream in (self._process.stdout, self._process.stderr) if stream is not None]

    async def ended(self, seconds: float) -> bool:
        """Wait for the end of the stage; False if it has not come within that many `seconds`."""
        return await self._readable(self._ended, seconds)

    async def kill(self) -> None:
        """Kill the tree if it still runs, and collect what is known of it. Nothing of it is left afterwards."""
        with contextlib.suppress(ProcessLookupError):
            if self._first is not None:
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            elif self._process.returncode is None:  # still being set up: nothing of the stage runs yet
                os.killpg(self._process.pid, signal.SIGKILL)
        if not await self.ended(KILL_GRACE):
            log.error("bwrap %d outlives its sandbox, killing it", self._process.pid)
            os.killpg(self._process.pid, signal.SIGKILL)
            await self.ended(KILL_GRACE)
        if self._first is not None:
            await self._readable(self._first, KILL_GRACE)
        self._reap()
        self._read_status()

    def close(self) -> None:
        """Close what is open. Whatever reads the streams must have ended."""
        self._loop.remove_reader(self._status)
        for descriptor in (self._status, self._ended, self._first):
            if descriptor is not None:
                os.close(descriptor)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    async def _readable(self, descriptor: int, seconds: float) -> bool:
        readable = asyncio.Event()
        self._loop.add_reader(descriptor, readable.set)
        try:
            async with asyncio.timeout(seconds):
                await readable.wait()
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._loop.remove_reader(descriptor)

    def _reap(self) -> None:
        self._process.wait()  # ended already
        with contextlib.suppress(ChildProcessError):
            pid, _, usage = os.wait4(self._first_pid, os.WNOHANG) if self._first_pid else (0, 0, None)
            if pid and usage is not None:
                # It reaped all others of its namespace, so their usage is within its own.
                self.memory_peak = usage.ru_maxrss * 1024
                self.cpu_seconds = round(usage.ru_utime + usage.ru_stime, 3)

    def _read_status(self) -> None:
        """Take what bwrap reports: first the namespace's first process, at the end the main process's exit code."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._status, 4096):
                self._report += chunk
            self._loop.remove_reader(self._status)
        while b"\n" in self._report:
            line, self._report = self._report.split(b"\n", 1)
            self._take(json.loads(line))

    def _take(self, report: Mapping[str, int]) -> None:
        if "child-pid" in report and self._first is None:
            with contextlib.suppress(ProcessLookupError):  # over already
                self._first = os.pidfd_open(report["child-pid"])
                self._first_pid = report["child-pid"]
        if "exit-code" in report:
            self.exit_code = report["exit-code"]


def read_stream(descriptor: int, take: Callable[[bytes], bool]) -> None:
    """Read a pipe to its end, giving chunks to `take` for as long as it answers True. Blocks.

    What is not wanted any more goes to /dev/null within the kernel: the writer is not held up, and we pay nothing.
    """
    while chunk := os.read(descriptor, 65536):
        if not take(chunk):
            break
    with open(os.devnull, "wb", buffering=0) as nowhere:  # noqa: PTH123 - a device, not a path of ours
        while os.splice(descriptor, nowhere.fileno(), 1 << 20):
            pass
