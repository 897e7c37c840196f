"""Reading what a container prints, over a connection attached to one of its streams."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from typing import Any

import urllib3

from broadway_grader.runtimes.line import Line
from broadway_grader.runtimes.output import BoundedOutput

#: How much of what is not kept is counted.
COUNTED_BYTES = 64 * 1024**2
_CHUNK = 65536
# How a connection may end that was cut, over a local socket and others.
_ENDS = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)
_HEADER = 8


class Frames:
    """Takes apart the engine's framing: 8 bytes of header, of which the last 4 are the length of what follows.

    Source: "Attach to a container", stream format, in the Docker Engine API reference. Chunks may cut frames anywhere.
    """

    def __init__(self) -> None:
        self._header = b""
        self._left = 0  # bytes of the current frame yet to come

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yields the payload in `chunk`."""
        position = 0
        while position < len(chunk):
            if self._left:
                payload = chunk[position : position + self._left]
                position += len(payload)
                self._left -= len(payload)
                yield payload
                continue
            missing = chunk[position : position + _HEADER - len(self._header)]
            position += len(missing)
            self._header += missing
            if len(self._header) == _HEADER:
                self._left, self._header = int.from_bytes(self._header[4:], "big"), b""


class AttachedStream:
    """One stream of one container. Attach before the container is started and nothing of it is missed."""

    def __init__(self, api: Any, container: str, name: str) -> None:
        """Attach to `stdout` or `stderr`. Blocks; raises the SDK's and requests' errors."""
        url = f"{api.base_url}/v{api.api_version}/containers/{container}/attach"
        # A stage may be silent for as long as it runs: no time limit here, the runtime has one.
        self._line = Line(api.post(url, params={name: 1, "stream": 1}, stream=True, timeout=None))

    def copy(self, output: BoundedOutput) -> None:
        """Copy until the stream ends, has brought far too much or is hung up. Blocks.

        What is beyond COUNTED_BYTES too much is not read: the engine throws away what nobody is attached to, so that a
        stage that prints gigabytes is not held up by us, and costs the grader nothing.
        """
        frames = Frames()
        # An engine that dies or a connection that is hung up ends the output; its container's fate is known elsewhere.
        response = self._line.response
        with contextlib.closing(response), contextlib.suppress(*_ENDS):
            # What has come, be it one byte: whoever follows the job does not wait until a chunk is full.
            while output.dropped_bytes < COUNTED_BYTES and (chunk := response.raw.read1(_CHUNK)):
                for payload in frames.feed(chunk):
                    output.add(payload)
        self._line.disconnect()

    def hang_up(self) -> None:
        """End the stream from another thread, waking the one that reads it. To be called once, in any case."""
        self._line.hang_up()
