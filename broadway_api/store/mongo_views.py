"""What people look at, in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from broadway_api.domain import Cause, Job, JobMeasure, JobQuery, JobSort, JobState, JobType, Reason
from broadway_api.store import records
from broadway_api.store.mongo_documents import BY_CAUSE, BY_RUN, BY_STATE, job_from_document
from broadway_api.store.mongo_engine import Document, translate_errors
from broadway_api.store.mongo_part import MongoPart, exists

_SHORT = {"attempts": False, "info": False, "results": False, "log": False}

_DURATION = {"$subtract": ["$finished_at", "$started_at"]}

#: What jobs are sorted by, as an expression.
_SORTS = {
    JobSort.ROSTER: "$seq",
    JobSort.STATE: {"$concat": ["$state", {"$ifNull": ["$reason", ""]}]},
    JobSort.SCORE: "$score",
    JobSort.DURATION: _DURATION,
    JobSort.FINISHED: "$finished_at",
    JobSort.ATTEMPT: "$attempt",
}


@translate_errors
class MongoViews(MongoPart):
    """Lists, numbers and clusters: reads only."""

    async def run_counts(self, run_ids: Sequence[str]) -> Mapping[str, Mapping[JobState, int]]:
        counts: dict[str, dict[JobState, int]] = {}
        groups = await self._jobs.aggregate(
            [
                {"$match": {"run_id": {"$in": list(run_ids)}}},
                {"$group": {"_id": {"run": "$run_id", "state": "$state"}, "number": {"$sum": 1}}},
            ],
            hint=BY_STATE,
        )
        async for group in groups:
            counts.setdefault(group["_id"]["run"], {})[JobState(group["_id"]["state"])] = group["number"]
        return counts

    async def find_jobs(self, run_id: str, query: JobQuery, *, limit: int, offset: int) -> tuple[list[Job], int]:
        if not await exists(self._runs, {"_id": run_id}):
            return [], 0  # it may be half created: nothing of it is to be seen
        wanted = _condition(run_id, query)
        direction = -1 if query.descending else 1
        found = await self._jobs.aggregate(
            [
                {"$match": wanted},
                {"$project": _SHORT},
                {"$set": {"by": _SORTS[query.sort]}},
                {"$set": {"without": {"$eq": [{"$ifNull": ["$by", None]}, None]}}},
                {"$sort": {"without": 1, "by": direction, "seq": direction}},
                {"$skip": offset},
                {"$limit": limit},
            ],
            hint=BY_RUN,
        )
        jobs = [job_from_document(document) async for document in found]
        return jobs, await self._jobs.count_documents(wanted, hint=BY_RUN)

    async def causes(self, run_id: str, limit: int) -> list[Cause]:
        groups = await self._jobs.aggregate(
            [
                {"$match": {"run_id": run_id, "state": JobState.FAILED.value}},
                {
                    "$group": {
                        "_id": {"reason": "$reason", "cause": {"$ifNull": ["$cause", ""]}},
                        "jobs": {"$sum": 1},
                        "first": {"$min": "$seq"},
                    }
                },
                {"$sort": {"jobs": -1, "first": 1}},
                {"$limit": limit},
            ],
            hint=BY_CAUSE,
        )
        found = await groups.to_list()
        examples = self._jobs.find({"run_id": run_id, "seq": {"$in": [group["first"] for group in found]}}, _SHORT)
        by_seq = {document["seq"]: job_from_document(document) async for document in examples}
        return [
            Cause(
                reason=Reason(group["_id"]["reason"]),
                text=group["_id"]["cause"],
                jobs=group["jobs"],
                example=by_seq[group["first"]],
            )
            for group in found
            if group["first"] in by_seq
        ]

    async def measures(self, run_id: str) -> list[JobMeasure]:
        ended = {"$in": [JobState.SUCCEEDED.value, JobState.FAILED.value]}
        found = await self._jobs.aggregate(
            [
                {"$match": {"run_id": run_id, "type": JobType.STUDENT.value, "state": ended}},
                {"$project": {"milliseconds": _DURATION, "score": True, "max_score": True}},
            ],
            hint=BY_STATE,
        )
        return [
            JobMeasure(
                milliseconds=None if document.get("milliseconds") is None else int(document["milliseconds"]),
                score=document.get("score"),
                max_score=document.get("max_score"),
            )
            async for document in found
        ]


def _condition(run_id: str, query: JobQuery) -> Document:
    wanted: Document = {"run_id": run_id}
    if query.states:
        wanted["state"] = {"$in": [state.value for state in query.states]}
    if query.reason is not None:
        wanted["reason"] = query.reason.value
    if query.cause is not None:
        # A job that an earlier release ended has none.
        wanted["cause"] = query.cause or {"$in": [None, ""]}
    if query.text:
        text = re.escape(records.to_text(query.text)[1:-1])  # as it stands in the JSON text of a roster entry
        wanted["$or"] = [{"_id": query.text}, {"student": {"$regex": text, "$options": "i"}}]
    return wanted
