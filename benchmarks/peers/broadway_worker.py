"""A worker process of Broadway's, simulated: it takes jobs, runs nothing, and reports a log of 1 KB for each.

python -m benchmarks.peers.broadway_worker       PEER_BROKER is the API's URL, PEER_TOKEN its token
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load import Connection, ask_json, request, result_of
from benchmarks.peers import peer

#: Jobs at a time, as many as Dramatiq has threads.
SLOTS = 8

#: Seconds that an empty queue holds a request.
WAIT = 20


async def work(port: int, token: str) -> None:
    """For ever: what has ended is reported in the request that brings what is next, as our graders do."""
    connection = await Connection.open(port)
    registration = {"hostname": "benchmark", "slots": SLOTS}
    worker = (await ask_json(connection, "POST", "/api/v1/worker_register", registration, token=token))["worker_id"]
    path = f"/api/v1/grading_job?slots={SLOTS}"
    claim = request("GET", path, token=token, worker=worker)
    claim = claim.replace(b"\r\n", f"\r\nPrefer: wait={WAIT}\r\n".encode(), 1)
    while True:
        status, answer = await connection.ask(claim)
        jobs = [] if status == 498 else json.loads(answer)["data"]["jobs"]
        while jobs:
            results = {"results": [{"job_id": job["job_id"], **_result(job)} for job in jobs]}
            jobs = (await ask_json(connection, "POST", path, results, token=token, worker=worker))["jobs"]


def _result(job: Any) -> dict[str, Any]:
    result = result_of(job)
    result["info"][0]["ran_at"] = peer.no_op()
    return result


def main() -> None:
    asyncio.run(work(urlsplit(peer.BROKER).port or 80, os.environ["PEER_TOKEN"]))


if __name__ == "__main__":
    main()
