"""Openings in the MongoDB store, see `places.py`: the jobs of a phase are queued, and what ranks they got is kept."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from pymongo import UpdateMany

from broadway_api.domain import JobState, JobType
from broadway_api.ids import new_id
from broadway_api.store.mongo_documents import BY_STATE, run_from_document
from broadway_api.store.mongo_engine import Collection, Document
from broadway_api.store.mongo_ranks import MongoRanks

#: First and last number in the roster of jobs that follow one another.
Span = Sequence[int]


class MongoOpenings:
    """Queues jobs, in steps of which each may be the last that is made, and may be made again by anybody.

    An opening is written to its run before the first of its jobs is queued, and marked `complete` after the last:
    until then nobody relies on it. Whoever comes to an unfinished one gives the rest the ranks that it says.
    """

    def __init__(self, jobs: Collection, runs: Collection, ranks: MongoRanks) -> None:
        self._jobs = jobs
        self._runs = runs
        self._ranks = ranks

    async def open(self, run: Document, job_type: JobType, now: datetime) -> int:
        """Queue what waits of that type, in the generation of the run that was read; return how many jobs."""
        opening = run.get("openings", {}).get(job_type) or await self._begin(run, job_type, now)
        if opening is None:
            return 0
        opened = await self._jobs.bulk_write(
            [UpdateMany(which, [{"$set": fields}]) for which, fields in _changes(run, job_type, opening, now)],
            ordered=False,
        )
        await self._end(run["_id"], job_type, opening)
        return opened.modified_count

    async def finish(self, run: Document) -> None:
        """Mark what a crash left unmarked, if all of it is queued."""
        for job_type, opening in run.get("openings", {}).items():
            if not opening["complete"] and await self._jobs.find_one(_waiting(run, job_type), hint=BY_STATE) is None:
                await self._end(run["_id"], job_type, opening)

    async def _begin(self, run: Document, job_type: JobType, now: datetime) -> Document | None:
        """Take ranks for what waits; None if there is nothing, or the run has gone on meanwhile."""
        waiting = _waiting(run, job_type)
        one, spans = await asyncio.gather(
            self._jobs.find_one(waiting, {"requirement": True}, hint=BY_STATE), self._spans(waiting)
        )
        if one is None or not spans:
            return None
        number, requirement = sum(last - first + 1 for first, last in spans), one.get("requirement", "")
        phase = f"{run['_id']}/{job_type}/{run.get('generation', 0)}"
        ranks = self._ranks.reserve(run_from_document(run), job_type, requirement, number, now, phase=phase)
        first, step = await ranks
        opening: Document = {
            "id": new_id(),
            "requirement": requirement,
            "first": first,
            "step": step,
            "jobs": number,
            "spans": spans,
            "complete": False,
        }
        same = {"_id": run["_id"], "generation": run.get("generation"), "withdrawn": {"$ne": True}}
        field = f"openings.{job_type}"
        begun = await self._runs.update_one({**same, field: {"$exists": False}}, {"$set": {field: opening}})
        if begun.matched_count:
            return opening
        others = await self._runs.find_one(same, {field: True})
        return None if others is None else others.get("openings", {}).get(job_type)

    async def _end(self, run_id: str, job_type: str, opening: Document) -> None:
        field = f"openings.{job_type}"
        await self._runs.update_one(
            {"_id": run_id, f"{field}.id": opening["id"]}, {"$set": {f"{field}.complete": True}}
        )

    async def _spans(self, waiting: Document) -> list[Span]:
        """The numbers of waiting jobs: mostly all of a roster, of which it reads the ends and counts the rest."""
        numbers = self._jobs.find(waiting, {"_id": False, "seq": True})
        ends = [job["seq"] for way in (1, -1) async for job in numbers.clone().sort("seq", way).limit(1)]
        if ends and ends[-1] - ends[0] + 1 == await self._jobs.count_documents(waiting, hint=BY_STATE):
            return [ends]
        return list(_spans_of([job["seq"] for job in await numbers.sort("seq").to_list()]))


def _waiting(run: Document, job_type: str) -> Document:
    """Jobs that a later generation made to wait are not this one's to queue."""
    later = {"$gt": run.get("generation", 0)}
    return {"run_id": run["_id"], "type": job_type, "state": JobState.WAITING, "generation": {"$not": later}}


def _changes(run: Document, job_type: str, opening: Document, now: datetime) -> Iterator[tuple[Document, Document]]:
    """What makes queued jobs of an opening's waiting ones, span by span: which, and their fields."""
    before = 0
    for first, last in opening["spans"]:
        number = {"$subtract": ["$seq", first - before]}  # of the job in its opening, as `Opening.rank` wants it
        rank = {"$add": [opening["first"], {"$multiply": [number, opening["step"]]}]}
        fields: dict[str, Any] = {"state": JobState.QUEUED, "queued_at": now, "rank": rank}
        # Jobs of an earlier release have neither.
        fields |= {"priority": {"$ifNull": ["$priority", 0]}, "requirement": {"$ifNull": ["$requirement", ""]}}
        yield _waiting(run, job_type) | {"seq": {"$gte": first, "$lte": last}}, fields
        before += last - first + 1


def _spans_of(numbers: Sequence[int]) -> Iterator[Span]:
    for _, together in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        span = [number for _, number in together]
        yield [span[0], span[-1]]
