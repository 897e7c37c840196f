"""A connection that knows what it has cost the wire: the kernel counts bytes and segments of each."""

from __future__ import annotations

import asyncio
import socket
import statistics
import struct
from collections import defaultdict

from benchmarks.load import Connection

#: Of `struct tcp_info` in linux/tcp.h: bytes acknowledged and received, segments sent and received.
_COUNTERS = struct.Struct("=120xQQII")

#: Bytes of the heads of IP and TCP, with time stamps, as Linux sends them.
_HEAD = 52


class CountedConnection(Connection):
    """Counts what goes to and fro, in bytes with the heads of all segments."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._noted: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._last = self._counted()

    def note(self, what: str) -> None:
        """What came and went since the last note was for that."""
        now = self._counted()
        self._noted[what].append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now

    def noted(self) -> dict[str, tuple[int, int]]:
        """Medians of bytes sent and received."""
        return {
            what: (int(statistics.median(sent)), int(statistics.median(received)))
            for what, (sent, received) in ((what, zip(*noted, strict=True)) for what, noted in self._noted.items())
        }

    def _counted(self) -> tuple[int, int]:
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNTERS.size)
        sent, received, segments_sent, segments_received = _COUNTERS.unpack(info)
        return sent + _HEAD * segments_sent, received + _HEAD * segments_received
