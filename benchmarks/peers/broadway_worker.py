"""A worker process of Broadway's, simulated: it claims jobs, runs nothing, and reports a log of 1 KB for each.

python -m benchmarks.peers.broadway_worker       PEER_BROKER is the API's URL, PEER_TOKEN its token
"""

from __future__ import annotations

import asyncio
import json
import os
from urllib.parse import urlsplit

from benchmarks.load import Connection, ask_json, request, result_of
from benchmarks.peers import peer

#: Jobs at a time, as many as Dramatiq has threads.
SLOTS = 8

#: Seconds that an empty queue holds a request.
WAIT = 20


async def work(port: int, token: str) -> None:
    """For ever: one slot."""
    connection = await Connection.open(port)
    registration = {"hostname": "benchmark", "slots": 1}
    worker = (await ask_json(connection, "POST", "/api/v1/worker_register", registration, token=token))["worker_id"]
    claim = request("GET", "/api/v1/grading_job", token=token, worker=worker)
    claim = claim.replace(b"\r\n", f"\r\nPrefer: wait={WAIT}\r\n".encode(), 1)
    while True:
        status, answer = await connection.ask(claim)
        if status == 498:
            continue
        job = json.loads(answer)["data"]
        result = result_of(job)
        result["info"][0]["ran_at"] = peer.no_op()
        await ask_json(connection, "POST", f"/api/v1/grading_job/{job['job_id']}", result, token=token, worker=worker)


async def main() -> None:
    """All slots."""
    port = urlsplit(peer.BROKER).port or 80
    await asyncio.gather(*(work(port, os.environ["PEER_TOKEN"]) for _ in range(SLOTS)))


if __name__ == "__main__":
    asyncio.run(main())
