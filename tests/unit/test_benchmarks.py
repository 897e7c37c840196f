"""What benchmarks say is only as good as how they count."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from benchmarks.cpu import cpu_seconds
from benchmarks.figures import Figure
from benchmarks.peers.report import behind, figures
from benchmarks.peers.systems import BROADWAY, PEERS
from benchmarks.peers.trial import Trial
from benchmarks.wire import CountedConnection

#: Burns half a second of CPU time in a child of its own, waits for it, says so and stays.
_PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.5: pass"])
print("done", flush=True)
sys.stdin.read()
"""


def test_cpu_time_includes_that_of_children_that_have_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"done\n"
        used = cpu_seconds([parent.pid])
        parent.communicate()
    assert 0.5 <= used < 2
    with pytest.raises(ProcessLookupError):
        cpu_seconds([os.getpid(), parent.pid])


def test_a_comparison_says_where_broadway_is_behind() -> None:
    def trials(rate: Callable[[int], float]) -> list[Trial]:
        """Those of three rounds, all alike but for the rate."""
        return [
            Trial(jobs_per_second=rate(number), handing_in=0.1, cpu=1.0, latencies=[0.001, 0.002])
            for number in (1, 2, 3)
        ]

    ours, others = {system.name for system in BROADWAY}, {system.name for system in PEERS}
    measured = {name: trials(lambda number: 100.0 * number) for name in ours}
    measured |= {name: trials(lambda number: 50.0 * number) for name in others}
    measured["RQ, Redis"] = trials(lambda number: 200.0 * number)

    def rate(figures: list[Figure]) -> Figure:
        (found,) = (
            figure for figure in figures if figure.what == "Broadway, SQLite: jobs/s, against the best of Celery and RQ"
        )
        return found

    assert rate(figures(measured)).value == pytest.approx(0.5)
    assert rate(figures(measured)).passed is False
    (line,) = (line for line in behind(measured).splitlines() if line.startswith("* Broadway, SQLite, jobs/s"))
    assert "(200): behind RQ, Redis (400): " in line
    measured["RQ, Redis"] = trials(lambda number: 80.0 * number)
    assert rate(figures(measured)).value == pytest.approx(1.25)
    assert rate(figures(measured)).passed is True
    assert "jobs/s" not in behind(measured)


async def test_the_wire_is_counted_with_the_heads_of_segments() -> None:
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readline():
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(1000))
            assert request == b"x" * 99 + b"\n"
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        _, connection = await asyncio.get_running_loop().create_connection(CountedConnection, "127.0.0.1", port)
        for _ in range(5):
            await connection.ask(b"x" * 99 + b"\n")
            connection.note("asked")
        connection.close()
        await ended.wait()
    ((what, (sent, received)),) = connection.noted().items()
    assert what == "asked"
    assert 100 + 52 <= sent <= 100 + 3 * 52  # the question, and up to two segments that only acknowledge
    assert 1040 + 52 <= received <= 1040 + 3 * 52
