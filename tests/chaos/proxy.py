"""The network between one process and the APIs, and what goes wrong on it.

Every grader and the client of courses have a `Link` of their own. It takes whole HTTP requests, sends each to one of
the APIs on a connection of its own, and may refuse, delay, repeat or cut off, or lose the answer after the request
went through.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

_LENGTH = re.compile(rb"^content-length:\s*(\d+)\s*$", re.IGNORECASE | re.MULTILINE)
_CONNECTION = re.compile(rb"^connection:[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)


class Mishap(enum.StrEnum):
    """What may happen to one request."""

    NONE = "none"
    DELAYED = "delayed"
    CUT = "cut"  # the connection breaks half way through the request, which no API gets
    UNANSWERED = "unanswered"  # the request goes through, its answer gets lost
    REPEATED = "repeated"  # the request goes through twice, perhaps at two APIs; one of the answers comes back
    HURRIED = "hurried"  # the caller is hung up on while an API may still be at it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weather:
    """How likely each mishap is."""

    delayed: float = 0.03
    cut: float = 0.02
    unanswered: float = 0.02
    repeated: float = 0.04
    hurried: float = 0.01

    def draw(self, chance: random.Random) -> Mishap:
        """What happens to the next request."""
        others = dataclasses.asdict(self)
        kinds = [Mishap.NONE, *map(Mishap, others)]
        return chance.choices(kinds, [1 - sum(others.values()), *others.values()])[0]


CALM = Weather(delayed=0, cut=0, unanswered=0, repeated=0, hurried=0)


class Link:
    """Listens on a port of its own, `port`; stopped by leaving its context."""

    def __init__(self, name: str, ports: Callable[[], Sequence[int]], seed: str, noted: Counter[str]) -> None:
        """`ports`: of the APIs. `noted` counts mishaps, and answers of status 500 or more by request."""
        self.name = name
        self.weather = Weather()
        self.is_cut = False
        self.port = 0
        self.faults: list[str] = []  # answers with status 500: there should be none
        self._ports = ports
        self._chance = random.Random(f"{seed}/{name}")  # noqa: S311 - a campaign must be repeatable, not secret
        self._noted = noted
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._stray: set[asyncio.Task[bytes]] = set()
        self._serving: set[asyncio.Task[None] | None] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        tasks = [*self._stray, *filter(None, self._serving)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def hang_up(self) -> None:
        """Break every connection that is open now."""
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        self._serving.add(task := asyncio.current_task())
        try:
            request = await _read_request(reader)
            if request is not None and not self.is_cut:
                await self._carry(request, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # a broken connection is what a link is for: its caller has noticed
        except asyncio.CancelledError:
            pass  # the link is being taken down; asyncio's streams report a cancelled handler as a fault
        finally:
            self._open.discard(writer)
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _carry(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mishap = self.weather.draw(self._chance)
        if mishap is not Mishap.NONE:
            self._noted[f"request {mishap}"] += 1
        if mishap is Mishap.DELAYED:
            await asyncio.sleep(self._chance.uniform(0.1, 1.5))
        if mishap is Mishap.CUT:
            await self._send_half(request)
            return
        if mishap is Mishap.REPEATED:
            second = asyncio.create_task(self._send(request))
            self._stray.add(second)
            second.add_done_callback(self._forget)
            await asyncio.sleep(self._chance.choice((0, 0.05, 0.5)))
        answering = asyncio.create_task(self._send(request))
        gone = asyncio.create_task(reader.read(1))  # nothing follows a request: this ends when its caller hangs up
        try:
            patience = self._chance.uniform(0.0, 0.05) if mishap is Mishap.HURRIED else None
            await asyncio.wait({answering, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return
            answer = answering.result()
            if mishap is Mishap.UNANSWERED or self.is_cut:
                return
            writer.write(answer)
            await writer.drain()
        finally:
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)

    async def _send(self, request: bytes) -> bytes:
        """The whole answer of one of the APIs; empty if it broke off. Raises OSError if none is there."""
        ports = list(self._ports())
        self._chance.shuffle(ports)
        for number, port in enumerate(ports):
            try:
                upstream, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if number + 1 == len(ports):
                    raise
                continue  # never sent: the next one may have it
            break
        try:
            writer.write(_CONNECTION.sub(b"", request).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            await writer.drain()
            answer = await upstream.read(-1)
        finally:
            writer.transport.abort()
        line = request.split(b"\r\n", 1)[0].decode("ascii", "replace")
        if match := re.match(rb"HTTP/1\.1 (5\d\d)", answer):
            status = match[1].decode()
            self._noted[f"answered {status}"] += 1
            if status != "503":
                self.faults.append(f"{self.name}: {line} was answered with status {status}")
        return answer

    async def _send_half(self, request: bytes) -> None:
        ports = self._ports()
        _, writer = await asyncio.open_connection("127.0.0.1", self._chance.choice(ports))
        writer.write(request[: len(request) // 2])
        await writer.drain()
        writer.transport.abort()

    def _forget(self, task: asyncio.Task[bytes]) -> None:
        self._stray.discard(task)
        if not task.cancelled():
            task.exception()  # nobody waits for a repetition


async def _read_request(reader: asyncio.StreamReader) -> bytes | None:
    """Head and body; None if the caller hung up before there was one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = _LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")
