"""Logs in MongoDB: short ones within the job, written as its result is accepted; others in pieces, since a document
may not pass 16 MB and a log may.

Each upload has an id of its own, and a job names the upload that counts. The pieces are written before the result is
accepted; accepting it, one write to the job, makes all of them visible at once. Those of a refused result are never
seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bson import ObjectId

from broadway_api.domain import StageLog
from broadway_api.store.mongo_engine import Collection, Document

#: Of each of a piece's two streams: well below the limit, and sent in some 10 ms of the event loop.
PIECE_BYTES = 1024 * 1024

#: Characters of a log that is kept within its job: whoever reads a whole class's jobs reads as much of each.
SHORT = 4_096


def new_upload() -> str:
    """The id of what one result's stages printed, wherever it is kept."""
    return str(ObjectId())


def is_short(logs: Sequence[StageLog]) -> bool:
    """Whether a log is kept within its job."""
    return sum(len(log.stdout) + len(log.stderr) for log in logs) <= SHORT


def within_job(logs: Sequence[StageLog]) -> list[Document]:
    """A log as a field of its job."""
    return [{"stage": log.stage, "stdout": log.stdout, "stderr": log.stderr} for log in logs]


def read_within_job(kept: Sequence[Mapping[str, Any]], stage: int | None) -> list[StageLog]:
    """The inverse of `within_job`, in the order of the stages."""
    logs = sorted((StageLog(**log) for log in kept), key=lambda log: log.stage)
    return [log for log in logs if stage in (None, log.stage)]


class MongoLogs:
    """The collection of logs."""

    def __init__(self, pieces: Collection) -> None:
        self._pieces = pieces

    async def upload(self, upload: str, job_id: str, attempt: int, logs: Sequence[StageLog]) -> None:
        """Write what the stages printed, seen by nobody yet."""
        pieces = (
            {"job_id": job_id, "attempt": attempt, "upload": upload, **piece} for log in logs for piece in _pieces(log)
        )
        batch: list[Document] = []
        size = 0
        for piece in pieces:
            batch.append(piece)
            size += len(piece["stdout"]) + len(piece["stderr"])
            if size >= PIECE_BYTES:
                await self._pieces.insert_many(batch)
                batch, size = [], 0
        if batch:
            await self._pieces.insert_many(batch)

    async def discard(self, job_id: str, upload: str) -> None:
        """Delete an upload that was not accepted."""
        await self._pieces.delete_many({"job_id": job_id, "upload": upload})

    async def discard_others(self, job_id: str, attempt: int, accepted: str) -> None:
        """Delete the uploads of earlier attempts, and those that a crash left half done.

        Not those of later attempts: another worker may be sending one.
        """
        await self._pieces.delete_many({"job_id": job_id, "attempt": {"$lte": attempt}, "upload": {"$ne": accepted}})

    async def discard_all(self, job_ids: Sequence[str]) -> None:
        """Delete every upload of some jobs."""
        await self._pieces.delete_many({"job_id": {"$in": list(job_ids)}})

    async def read(self, job_id: str, upload: str, stage: int | None) -> list[StageLog]:
        """What the stages of an upload printed, or one of them."""
        wanted = {"job_id": job_id, "upload": upload, **({} if stage is None else {"stage": stage})}
        pieces = await self._pieces.find(wanted).sort([("stage", 1), ("part", 1)]).to_list()
        return [
            _joined(number, list(group)) for number, group in itertools.groupby(pieces, lambda piece: piece["stage"])
        ]


def _pieces(log: StageLog) -> Iterator[Document]:
    """At least one, however little was printed."""
    stdout, stderr = log.stdout.encode(), log.stderr.encode()
    for part, start in enumerate(range(0, max(len(stdout), len(stderr), 1), PIECE_BYTES)):
        cut = slice(start, start + PIECE_BYTES)
        yield {"stage": log.stage, "part": part, "stdout": stdout[cut], "stderr": stderr[cut]}


def _joined(stage: int, pieces: Sequence[Document]) -> StageLog:
    return StageLog(
        stage=stage,
        stdout=b"".join(piece["stdout"] for piece in pieces).decode(),
        stderr=b"".join(piece["stderr"] for piece in pieces).decode(),
    )
