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

from broadway_grader.runtimes.output import BoundedOutput

log = logging.getLogger(__name__)

#: Seconds that a tree may take to go once its first process was killed.
KILL_GRACE = 10.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Make this process the parent of what its children leave behind.

    bwrap ends without reaping the first process of the namespace it made. Reaped by us it tells what the stage used;
    and where the machine's own init is none (in a container, say) nobody else would reap it at all.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Report:
    """What a bwrap tells on its `--json-status-fd`: the first process of its namespace, and how the main one ended.

    It is also how a bwrap notices a grader that was killed right after starting it. Once it has arranged to end with
    its parent, before it runs anything, it reports; and where nobody is left to read that, it ends.
    """

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._text = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reading, self.read)
        self.first: int | None = None  # a pidfd of the first process …
        self.first_pid = 0  # … and its number
        self.exit_code: int | None = None  # None: bwrap did not get to running anything, or has not ended
        self.on_first: Callable[[], None] = lambda: None  # called when the first process is there

    def read(self) -> None:
        """Take what has come."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reading, 4096):
                self._text += chunk
            self._loop.remove_reader(self._reading)
        while b"\n" in self._text:
            line, self._text = self._text.split(b"\n", 1)
            self._take(json.loads(line))

    def handed_over(self) -> None:
        """Close our copy of the writing end; the bwrap has its own."""
        os.close(self.writing)

    def close(self) -> None:
        """Close what is open."""
        self._loop.remove_reader(self._reading)
        os.close(self._reading)
        if self.first is not None:
            os.close(self.first)

    def _take(self, told: Mapping[str, int]) -> None:
        if "child-pid" in told:
            with contextlib.suppress(ProcessLookupError):  # over already
                self.first = os.pidfd_open(told["child-pid"])
                self.first_pid = told["child-pid"]
            self.on_first()
        if "exit-code" in told:
            self.exit_code = told["exit-code"]


class BwrapProcess:
    """A running bwrap, and the process tree below it.

    Everything below lives in one pid namespace. Its first process is what is killed: the kernel then ends all others,
    however they were forked, before that one counts as ended.
    """

    def __init__(self, command: Sequence[str], pass_fds: Sequence[int], tree: Report, *, keep_output: bool) -> None:
        """Start it, from the thread of the event loop: it dies with the very thread that started it.

        `tree` is the report of the bwrap that is started, which names the first process of all.
        """
        output = subprocess.PIPE if keep_output else subprocess.DEVNULL
        self._loop = asyncio.get_running_loop()
        self._tree = tree
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            bufsize=0,
            env={},  # a stage's own comes with bwrap's options; nothing of ours may come with it
            cwd="/",
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._ended = os.pidfd_open(self._process.pid)
        self._over = asyncio.Event()
        self._watched = {self._ended}
        self._loop.add_reader(self._ended, self._end)
        self._held = False
        self.memory_peak: int | None = None  # bytes, of the largest process
        self.cpu_seconds: float | None = None

    @property
    def streams(self) -> list[int]:
        """The reading ends of stdout and stderr, if output is kept."""
        return [stream.fileno() for stream in (self._process.stdout, self._process.stderr) if stream is not None]

    async def ended(self, seconds: float) -> bool:
        """Wait for the end of the stage; False if it has not come within that many `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return False
        return True

    def hold(self) -> None:
        """Keep the bwrap that was started, which now only waits, from ending before its sandbox has.

        The end of a bwrap kills the first process of its namespace, and if that comes before what the stage used has
        been handed up to that process, it is lost. To be called once a bwrap within has reported.
        """
        if self._tree.first is None or self._over.is_set():
            return
        signal.pidfd_send_signal(self._ended, signal.SIGSTOP)
        self._held = True
        self._watched.add(self._tree.first)
        self._loop.add_reader(self._tree.first, self._end)

    def _end(self) -> None:
        self._over.set()
        while self._watched:
            self._loop.remove_reader(self._watched.pop())

    async def kill(self) -> None:
        """Kill the tree if it still runs, and collect what is known of it. Nothing of it is left afterwards."""
        with contextlib.suppress(ProcessLookupError):
            if self._tree.first is not None:
                signal.pidfd_send_signal(self._tree.first, signal.SIGKILL)
            elif not await self.ended(0):  # still being set up: nothing of the stage runs yet
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._held and self._tree.first is not None:
            await self._readable(self._tree.first, KILL_GRACE)
            signal.pidfd_send_signal(self._ended, signal.SIGKILL)
        if not await self._readable(self._ended, KILL_GRACE):
            log.error("bwrap %d outlives its sandbox, killing it", self._process.pid)
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._readable(self._ended, KILL_GRACE)
        if self._tree.first is not None:
            await self._readable(self._tree.first, KILL_GRACE)
        self._reap()

    def close(self) -> None:
        """Close what is open. Whatever reads the streams must have ended."""
        self._end()
        os.close(self._ended)
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
        if not self._tree.first_pid:
            return
        with contextlib.suppress(ChildProcessError):  # its bwrap was there first
            pid, _, usage = os.wait4(self._tree.first_pid, os.WNOHANG)
            if pid:
                # It reaped all others of its namespace, so their usage is within its own.
                self.memory_peak = usage.ru_maxrss * 1024
                self.cpu_seconds = round(usage.ru_utime + usage.ru_stime, 3)


def read_stream(descriptor: int, output: BoundedOutput) -> None:
    """Read a pipe to its end. Blocks.

    What is too much goes to /dev/null within the kernel: the writer is not held up, and we pay nothing.
    """
    while chunk := os.read(descriptor, 65536):
        if not output.add(chunk):
            break
    with open(os.devnull, "wb", buffering=0) as nowhere:  # noqa: PTH123 - a device, not a path of ours
        while count := os.splice(descriptor, nowhere.fileno(), 1 << 20):
            output.drop(count)
