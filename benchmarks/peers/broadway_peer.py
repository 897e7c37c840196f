"""Broadway: two worker processes of eight slots, the API on SQLite or MongoDB. Jobs come as a run, in two requests."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load import Connection, ask_json
from benchmarks.peers import peer

_TOKEN = os.environ.get("PEER_TOKEN", "")


class BroadwayPeer:
    """See `peer.Peer`."""

    def __init__(self) -> None:
        self._connection = Connection()
        self._run = ""  # the last one; those before it are over
        self._jobs = 0  # of all runs but the last

    async def open(self) -> None:
        self._connection = await Connection.open(urlsplit(peer.BROKER).port or 80)

    async def enqueue(self, jobs: int) -> None:
        self._jobs = await self.ended()
        config = {
            "students": [{"NET_ID": f"student{number}"} for number in range(jobs)],
            "student_pipeline": [{"image": "grade:1"}],
        }
        self._run = (await self._ask("POST", "grading_run", config))["grading_run_id"]
        await self._ask("POST", f"grading_run/{self._run}")

    async def ended(self) -> int:
        return self._jobs + (await self._status())["counts"]["succeeded"] if self._run else 0

    async def latency(self) -> float:
        began = time.monotonic()
        await self.enqueue(1)
        while (await self._status())["finished_at"] is None:  # noqa: ASYNC110  # it is told elsewhere
            await asyncio.sleep(0.005)
        (job,) = (await self._ask("GET", f"grading_run/{self._run}?jobs=all"))["jobs"]
        (info,) = (await self._ask("GET", f"grading_job/{job['job_id']}"))["info"]
        return float(info["ran_at"]) - began

    async def _status(self) -> Any:
        return await self._ask("GET", f"grading_run/{self._run}")

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return await ask_json(self._connection, method, f"/api/v1/{path}", body, token=_TOKEN)


PEER = BroadwayPeer()
