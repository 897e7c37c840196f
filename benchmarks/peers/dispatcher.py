"""The program that hands in jobs to one queue and times them: python -m benchmarks.peers.dispatcher PEER

It runs in the queue's own virtual environment and takes its orders from standard input, one a line: `drain N` and
`latency N`. Each is answered by a line of JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time

from benchmarks.peers.peer import Peer

#: Seconds between two looks at how many jobs have ended: a quarter of what is left to be waited for, within these.
LEAST_PAUSE, LONGEST_PAUSE = 0.01, 0.5

#: Seconds without any progress until it is given up.
PATIENCE = 60.0


async def drain(peer: Peer, jobs: int) -> dict[str, float]:
    """Hand in jobs and wait for all their results; seconds until all were handed in, and until all had ended."""
    before = await peer.ended()
    began = time.monotonic()
    await peer.enqueue(jobs)
    handed_in = progress = time.monotonic()
    ended = 0
    while ended < jobs:
        now = await peer.ended() - before
        if now > ended:
            ended, progress = now, time.monotonic()
        elif time.monotonic() - progress > PATIENCE:
            raise TimeoutError(f"{ended} of {jobs} jobs have ended, and no more for {PATIENCE:.0f} s")
        left = (time.monotonic() - began) * (jobs - ended) / max(ended, 1)
        await asyncio.sleep(min(max(left / 4, LEAST_PAUSE), LONGEST_PAUSE) if ended < jobs else 0)
    return {"handed_in": handed_in - began, "ended": progress - began}


async def latency(peer: Peer, jobs: int) -> list[float]:
    """Latencies of jobs that are handed in one by one, in seconds."""
    return [await peer.latency() for _ in range(jobs)]


async def main(name: str) -> None:
    """Carry out orders until there are no more."""
    peer: Peer = importlib.import_module(f"benchmarks.peers.{name}").PEER
    await peer.open()
    while line := await asyncio.to_thread(sys.stdin.readline):
        order, number = line.split()
        answer = await (drain if order == "drain" else latency)(peer, int(number))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
