"""A server of one handler that does nothing: what Tornado itself costs. `python -m benchmarks.empty_server PORT`"""

from __future__ import annotations

import asyncio
import logging
import sys

from tornado.web import Application, RequestHandler

#: 200 bytes of JSON.
ANSWER = {"status": "success", "data": {"text": "x" * 157}}


class EmptyHandler(RequestHandler):
    """Reads nothing of what it is sent."""

    async def post(self) -> None:
        self.write(ANSWER)


async def serve(port: int) -> None:
    """For ever."""
    logging.getLogger("tornado.access").setLevel(logging.ERROR)  # it would say nothing without a handler, but ask
    Application([(r"/", EmptyHandler)]).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
