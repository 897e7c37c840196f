"""The collections of the MongoDB store, and documents as domain values.

Ids are strings, times are dates. What no query looks into is JSON text: it keeps integers of any size, and keys that
MongoDB would read as operators.

| collection | a document is |
|---|---|
| `runs` | a run; `unsettled` from its start until nothing is left to do, then `settled`,
  `generation`: how often it was retried, `retry`: which jobs are still to be made to wait for that,
  `openings`: which ranks the jobs of each type got, `withdrawn`: those are being cancelled,
  `idempotency` if it was made with a key |
| `jobs` | a job; `ended` repeats what `state` says, so that a live job never moves within the index that finds it |
| `logs` | a piece of a stage's output, see `mongo_logs` |
| `workers` | a worker |
| `assignments` | a course's configuration of an assignment |
| `secrets` | a course's secret, sealed |
| `deliveries` | what a webhook is told; `due_at` until it was heard or given up |
| `courses` | a flow, see `turns`: the last rank it was given |
| `frontiers` | how far jobs of one requirement and priority were handed out, see `places` |
| `meta` | `schema`: this schema's version; `queue`: the queue's virtual times; `ping`: the last test of writing;
  `bell`: rung when jobs were queued; `directory`: all courses and tokens |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel

from broadway_api.domain import (
    Attempt,
    IdempotencyKey,
    Job,
    JobState,
    JobType,
    Reason,
    Run,
    RunState,
    Worker,
)
from broadway_api.store import records

Document = dict[str, Any]

#: Names of the indexes that queries insist on: a wrong guess of the planner would read a whole queue or class.
BY_URGENCY = "by_urgency"
BY_FAIRNESS = "by_fairness"
HELD = "held"
UNFINISHED = "unfinished"
BY_STATE = "by_state"
BY_RUN = "by_run"
BY_CAUSE = "by_cause"
BY_END = "by_end"
LEASES = "leases"
DUE = "due"

#: The index that every collection has. Who names an id and more need not have it weighed against others.
BY_ID = "_id_"

#: Its document in `meta`.
DIRECTORY = "directory"

_QUEUED = {"state": JobState.QUEUED.value}
_BY_REQUIREMENT = [("state", ASCENDING), ("requirement", ASCENDING)]
_RUNNING = {"state": JobState.RUNNING.value}

#: A worker that nothing speaks against.
BLAMELESS = {"strikes": 0, "quarantined_until": None}

INDEXES = {
    "deliveries": [
        IndexModel(
            [("due_at", ASCENDING), ("_id", ASCENDING)],
            name=DUE,
            partialFilterExpression={"due_at": {"$exists": True}},
        ),
        IndexModel([("created_at", ASCENDING)], name="by_age"),
        IndexModel([("run_id", ASCENDING), ("created_at", ASCENDING)], name="by_run"),
    ],
    "secrets": [IndexModel([("_id.course", ASCENDING), ("_id.name", ASCENDING)], name="by_course")],
    "runs": [
        IndexModel([("course", ASCENDING), ("_id", DESCENDING)], name="by_course"),
        IndexModel([("finished_at", ASCENDING)], name=BY_END, partialFilterExpression={"settled": True}),
        IndexModel([("unsettled", ASCENDING)], name="unsettled", partialFilterExpression={"unsettled": True}),
        IndexModel(
            [("course", ASCENDING), ("idempotency.key", ASCENDING)],
            name="idempotency",
            unique=True,
            partialFilterExpression={"idempotency.key": {"$exists": True}},
        ),
    ],
    "jobs": [
        # In the two orders of claiming, and of the queued alone: they stay as small as the queue. The state is in them,
        # though it never differs, for queries that shall read nothing else.
        IndexModel(
            [*_BY_REQUIREMENT, ("priority", DESCENDING), ("rank", ASCENDING), ("_id", ASCENDING)],
            name=BY_URGENCY,
            partialFilterExpression=_QUEUED,
        ),
        IndexModel(
            [*_BY_REQUIREMENT, ("rank", ASCENDING), ("_id", ASCENDING)],
            name=BY_FAIRNESS,
            partialFilterExpression=_QUEUED,
        ),
        IndexModel([("worker_id", ASCENDING)], name=HELD, partialFilterExpression=_RUNNING),
        IndexModel([("lease_expires_at", ASCENDING)], name=LEASES, partialFilterExpression=_RUNNING),
        # A job stays at its place here while it is waiting, queued and running, and leaves when it ends: one probe
        # says whether a phase is over, and cannot miss a job that changes its state meanwhile.
        IndexModel(
            [("run_id", ASCENDING), ("type", ASCENDING)], name=UNFINISHED, partialFilterExpression={"ended": False}
        ),
        IndexModel([("run_id", ASCENDING), ("seq", ASCENDING)], name=BY_RUN, unique=True),
        # `reason` is here for the summary, which then reads no document.
        IndexModel(
            [("run_id", ASCENDING), ("type", ASCENDING), ("state", ASCENDING), ("reason", ASCENDING)], name=BY_STATE
        ),
        IndexModel(
            [(name, ASCENDING) for name in ("run_id", "state", "reason", "cause", "seq")],
            name=BY_CAUSE,
            partialFilterExpression={"state": JobState.FAILED.value},
        ),
    ],
    "workers": [
        IndexModel(
            [("name", ASCENDING)], name="by_name", unique=True, partialFilterExpression={"name": {"$type": "string"}}
        )
    ],
    "logs": [
        IndexModel(
            [("job_id", ASCENDING), ("upload", ASCENDING), ("stage", ASCENDING), ("part", ASCENDING)], name="by_job"
        )
    ],
}


def run_to_document(run: Run, idempotency: IdempotencyKey | None) -> Document:
    document: Document = {
        "_id": run.id,
        "course": run.course,
        "state": run.state.value,
        "priority": run.priority,
        "config": records.config_to_text(run.config),
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "unsettled": False,
        "settled": False,
    }
    if idempotency:
        document["idempotency"] = {"key": idempotency.key, "fingerprint": idempotency.fingerprint}
    return document


def run_from_document(document: Document) -> Run:
    return Run(
        id=document["_id"],
        course=document["course"],
        state=RunState(document["state"]),
        priority=document.get("priority", 0),  # none in what an earlier release wrote
        config=records.config_from_text(document["config"]),
        created_at=document["created_at"],
        started_at=document["started_at"],
        finished_at=document["finished_at"],
    )


def job_to_document(job: Job) -> Document:
    return {
        "_id": job.id,
        "run_id": job.run_id,
        "type": job.type.value,
        "seq": job.seq,
        "student": None if job.student is None else records.to_text(job.student),
        "priority": job.priority,
        "requirement": job.requirement,
        "attempt": job.attempt,
        "queued_at": job.queued_at,
        **outcome(job),
    }


#: What the end of an attempt sets, and how it is written where it is not written as it is.
_OUTCOME: dict[str, Callable[[Any], Any] | None] = {
    "state": lambda state: state.value,
    "reason": lambda reason: None if reason is None else reason.value,
    "attempt_limit": None,
    "worker_id": None,
    "lease_expires_at": None,
    "avoid_worker_id": None,
    "avoid_until": None,
    "started_at": None,
    "finished_at": None,
    "attempts": lambda attempts: [_attempt_to_document(attempt) for attempt in attempts],
    "info": records.to_text,
    "score": None,
    "max_score": None,
    "results": lambda results: None if results is None else records.to_text(results),
    "cause": None,
    "said": None,
}


def outcome(job: Job, *, before: Job | None = None) -> Document:
    """The fields that the end of an attempt sets; those that differ, if it is told from what.

    To set what stays the same costs the server as much.
    """
    fields: Document = {"ended": job.state.ended}
    for name, write in _OUTCOME.items():
        value = getattr(job, name)
        if before is None or value != getattr(before, name):
            fields[name] = value if write is None else write(value)
    return fields


def still_running(job: Job) -> Document:
    """Says of a job's document that its attempt goes on."""
    return {
        "_id": job.id,
        "run_id": job.run_id,  # by which the collection may be sharded
        "state": JobState.RUNNING.value,
        "worker_id": job.worker_id,
        "attempt": job.attempt,
    }


def job_from_document(document: Document) -> Job:
    """A job; `attempts`, `info` and `results` are empty if the query left them out.

    A job that an earlier release wrote has no score.
    """
    results = document.get("results")
    return Job(
        id=document["_id"],
        run_id=document["run_id"],
        type=JobType(document["type"]),
        seq=document["seq"],
        student=None if document["student"] is None else records.from_text(document["student"]),
        state=JobState(document["state"]),
        priority=document.get("priority", 0),  # none in a job that had ended before there were any
        requirement=document.get("requirement", ""),
        reason=_reason(document["reason"]),
        attempt=document["attempt"],
        attempt_limit=document["attempt_limit"],
        worker_id=document["worker_id"],
        lease_expires_at=document["lease_expires_at"],
        avoid_worker_id=document["avoid_worker_id"],
        avoid_until=document["avoid_until"],
        queued_at=document["queued_at"],
        started_at=document["started_at"],
        finished_at=document["finished_at"],
        attempts=tuple(_attempt_from_document(attempt) for attempt in document.get("attempts", ())),
        info=tuple(records.from_text(document.get("info", "[]"))),
        score=document.get("score"),
        max_score=document.get("max_score"),
        results=None if results is None else records.from_text(results),
        cause=document.get("cause") or "",
        said=document.get("said") or "",
    )


def worker_to_document(worker: Worker) -> Document:
    return {
        "_id": worker.id,
        "hostname": worker.hostname,
        "slots": worker.slots,
        "runtime": worker.runtime,
        "version": worker.version,
        "labels": records.to_text(dict(worker.labels)),
        "registered_at": worker.registered_at,
        "last_seen": worker.last_seen,
        "jobs_processed": worker.jobs_processed,
        "draining": worker.draining,
        "strikes": worker.strikes,
        "quarantined_until": worker.quarantined_until,
        "name": worker.name,
        "asked_at": worker.asked_at,
        "owner": worker.owner,
    }


def worker_from_document(document: Document) -> Worker:
    return Worker(
        id=document["_id"],
        hostname=document["hostname"],
        slots=document["slots"],
        runtime=document["runtime"],
        version=document["version"],
        labels=records.from_text(document["labels"]),
        registered_at=document["registered_at"],
        last_seen=document["last_seen"],
        jobs_processed=document["jobs_processed"],
        draining=document["draining"],
        strikes=document["strikes"],
        quarantined_until=document["quarantined_until"],
        # None of these is in what an earlier release wrote.
        name=document.get("name"),
        asked_at=document.get("asked_at"),
        owner=document.get("owner"),
    )


def _attempt_to_document(attempt: Attempt) -> Document:
    return {
        "number": attempt.number,
        "worker_id": attempt.worker_id,
        "reason": None if attempt.reason is None else attempt.reason.value,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "reported": attempt.reported,
    }


def _attempt_from_document(document: Document) -> Attempt:
    return Attempt(
        number=document["number"],
        worker_id=document["worker_id"],
        reason=_reason(document["reason"]),
        started_at=document["started_at"],
        finished_at=document["finished_at"],
        reported=document["reported"],
    )


def _reason(value: str | None) -> Reason | None:
    return None if value is None else Reason(value)
