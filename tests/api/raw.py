"""HTTP/1.1 by hand, for what no well-behaved client sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.api.serving import DEADLINE, TOKEN


@dataclass(frozen=True, kw_only=True)
class RawAnswer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        """Of an answer in the envelope of the caller's fault."""
        envelope: dict[str, Any] = json.loads(self.body)
        assert envelope["status"] == "fail"
        return str(envelope["data"]["message"])


class Connection:
    """One connection to the API."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        async with asyncio.timeout(DEADLINE):
            await self._writer.drain()

    async def head(self, method: str, path: str, **headers: str) -> None:
        """Send the head of a request with the right token; `Content_Length` for `Content-Length`."""
        fields = {"Host": "api", "Authorization": TOKEN} | {
            name.replace("_", "-") if name != "worker_id" else name: value for name, value in headers.items()
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        await self.send("\r\n".join(lines).encode())

    async def chunk(self, data: bytes) -> None:
        """Send a piece of a chunked body; an empty one is its end."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def answer(self) -> RawAnswer:
        """The next whole answer."""
        async with asyncio.timeout(DEADLINE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return RawAnswer(status=int(first.split()[1]), headers=headers, body=body)

    async def piece(self, most: int) -> bytes:
        """What has come, up to so many bytes; nothing at the end."""
        async with asyncio.timeout(DEADLINE):
            return await self._reader.read(most)

    async def closed(self) -> bool:
        """Whether the API closes the connection without another byte."""
        async with asyncio.timeout(DEADLINE):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True

    async def everything(self) -> bytes:
        """All that the API says until it closes the connection."""
        said = b""
        async with asyncio.timeout(DEADLINE):
            try:
                while piece := await self._reader.read(65_536):
                    said += piece
            except ConnectionError:
                pass
        return said

    async def until(self, wanted: bytes) -> bytes:
        """All that the API says up to that, and what came with it."""
        said = b""
        async with asyncio.timeout(DEADLINE):
            while wanted not in said:
                piece = await self._reader.read(1 << 20)
                assert piece, said[-1_000:]
                said += piece
        return said

    async def refused(self) -> bool:
        """Whether the API closes the connection, with at most the answer before that it could not be read."""
        async with asyncio.timeout(DEADLINE):
            try:
                said = await self._reader.read()
            except ConnectionError:
                return True
        return said == b"" or said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))

    async def flood(self, piece: bytes, total: int) -> int:
        """Send a piece again and again until `total` bytes went or the API hangs up; return how many went."""
        sent = 0
        try:
            while sent < total:
                await self.send(piece)
                sent += len(piece)
        except ConnectionError:
            pass
        return sent

    def abort(self) -> None:
        """Vanish, as a killed client does."""
        self._writer.transport.abort()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    """A connection, aborted at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()
