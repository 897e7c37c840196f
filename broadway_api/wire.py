"""What people are shown, as the bodies of `docs/protocol.md`. Pure. For graders see `worker_wire.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from broadway_api import capabilities, runconfig
from broadway_api.distribution import Distribution
from broadway_api.domain import (
    Cause,
    CourseQueue,
    Delivery,
    Job,
    JobState,
    Run,
    RunConfig,
    RunState,
    RunSummary,
    StageLog,
    Stranded,
    Worker,
    WorkerState,
)
from broadway_api.tenants import Course, Principal, Role, Token

Json = dict[str, Any]


def timestamp(time: datetime | None) -> str | None:
    """ISO 8601 in UTC with milliseconds."""
    return None if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- runs, jobs, workers ----------------------------------------------------------------------------------------------


def run_to_json(run: Run) -> Json:
    """A run as lists show it."""
    return {
        "grading_run_id": run.id,
        "course": run.course,
        "state": run.state,
        "priority": run.priority,
        "success": run.state is RunState.FINISHED if run.state.ended else None,
        "created_at": timestamp(run.created_at),
        "started_at": timestamp(run.started_at),
        "finished_at": timestamp(run.finished_at),
    }


def stranded_to_json(stranded: Stranded) -> Json:
    """Queued jobs that no worker can run."""
    return {
        "require": capabilities.asked_in(stranded.requirement),
        "jobs": stranded.jobs,
        "message": stranded.message,
    }


def summary_to_json(summary: RunSummary) -> Json:
    """A run with what its jobs amount to."""
    return run_to_json(summary.run) | {
        "counts": {state.value: summary.counts.get(state, 0) for state in JobState},
        "reasons": {reason.value: number for reason, number in summary.reasons.items()},
        "stranded": [stranded_to_json(some) for some in summary.stranded],
        "eta_seconds": None if summary.seconds_left is None else round(summary.seconds_left),
        "pre_processing_job": _end_job(summary.pre_processing_job),
        "post_processing_job": _end_job(summary.post_processing_job),
    }


def _end_job(job: Job | None) -> Json | None:
    return None if job is None else {"job_id": job.id, "state": job.state, "reason": job.reason}


def job_to_json(job: Job, *, worker_ids: bool = True) -> Json:
    """A job as a run's list shows it; `worker_ids`: with those, which are half of what lets a grader in."""
    return {
        "job_id": job.id,
        "type": job.type,
        "state": job.state,
        "reason": job.reason,
        "score": job.score,
        "max_score": job.max_score,
        "attempt": job.attempt,
        "worker_id": job.worker_id if worker_ids else None,
        "student": None if job.student is None else dict(job.student),
        "queued_at": timestamp(job.queued_at),
        "started_at": timestamp(job.started_at),
        "finished_at": timestamp(job.finished_at),
    }


def job_detail_to_json(
    job: Job,
    config: RunConfig,
    hostnames: Mapping[str, str],
    *,
    position: int | None,
    stranded: str | None,
    worker_ids: bool = True,
) -> Json:
    """Everything about a job but its output; `hostnames` of the workers that are still known.

    `position` in the queue, `stranded`: why nobody can run it.
    """
    return job_to_json(job, worker_ids=worker_ids) | {
        "grading_run_id": job.run_id,
        "priority": job.priority,
        "require": capabilities.asked_in(job.requirement),
        "position": position,
        "stranded": stranded,
        "cause": job.cause,
        "said": job.said,
        "worker_hostname": hostnames.get(job.worker_id or ""),
        "pipeline": [runconfig.stage_to_json(stage) for stage in config.pipeline(job.type)],
        "results": None if job.results is None else dict(job.results),
        "info": [dict(info) for info in job.info],
        "attempts": [
            {
                "attempt": attempt.number,
                "worker_id": attempt.worker_id if worker_ids else None,
                "hostname": hostnames.get(attempt.worker_id),
                "reason": attempt.reason,
                "started_at": timestamp(attempt.started_at),
                "finished_at": timestamp(attempt.finished_at),
            }
            for attempt in job.attempts
            if not (job.state.ended and attempt.number == job.attempt)  # that one is the job's own outcome
        ],
    }


def logs_to_json(job: Job, logs: Sequence[StageLog]) -> Json:
    """What a job's stages printed in the last attempt that its worker reported; `attempt` is null if none was."""
    reported = [attempt.number for attempt in job.attempts if attempt.reported]
    return {
        "job_id": job.id,
        "attempt": reported[-1] if reported else None,
        "stages": [{"stage": log.stage, "stdout": log.stdout, "stderr": log.stderr} for log in logs],
    }


def delivery_to_json(delivery: Delivery) -> Json:
    """What a webhook is told of a run, and what came of it."""
    return {
        "delivery_id": delivery.id,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "created_at": timestamp(delivery.created_at),
        "next_attempt_at": timestamp(delivery.due_at),
        "heard_at": timestamp(delivery.heard_at),
        "fault": delivery.fault,
    }


def secret_to_json(name: str, changed_at: datetime) -> Json:
    """A secret as far as anybody is shown it."""
    return {"name": name, "changed_at": timestamp(changed_at)}


def worker_to_json(worker: Worker, running: Sequence[str], state: WorkerState) -> Json:
    """A worker as the list shows it."""
    return {
        "worker_id": worker.id,
        "hostname": worker.hostname,
        "slots": worker.slots,
        "runtime": worker.runtime,
        "version": worker.version,
        "labels": dict(worker.labels),
        "state": state,
        "quarantined_until": timestamp(worker.quarantined_until),
        "registered_at": timestamp(worker.registered_at),
        "last_seen": timestamp(worker.last_seen),
        "running": list(running),
        "jobs_processed": worker.jobs_processed,
    }


# --- courses and tokens -----------------------------------------------------------------------------------------------


def course_to_json(course: Course) -> Json:
    """A course, with how many tokens it was configured with, and none of them."""
    return {
        "course": course.id,
        "weight": course.weight,
        "tokens": len(course.tokens),
        "query_tokens": len(course.query_tokens),
        "from_file": course.from_file,
    }


def token_to_json(token: Token, now: datetime) -> Json:
    """A token, without anything that it could be told from."""
    state = "valid" if token.ended(now) is None else "revoked" if token.revoked_at else "expired"
    return {
        "token_id": token.id,
        "role": token.role,
        "course": token.course,
        "label": token.label,
        "state": state,
        "created_at": timestamp(token.created_at),
        "expires_at": timestamp(token.expires_at),
        "revoked_at": timestamp(token.revoked_at),
    }


# --- sessions, and what is looked at ----------------------------------------------------------------------------------


def session_to_json(principals: Sequence[Principal], expires_at: datetime, proof: str) -> Json:
    """Who sits there. Should the token open several courses, the role is the one that may most."""
    roles = {principal.role for principal in principals}
    return {
        "role": next(role for role in (Role.OPERATOR, Role.ADMIN, Role.QUERY) if role in roles),
        "courses": sorted({principal.course for principal in principals if principal.course is not None}),
        "expires_at": timestamp(expires_at),
        "proof": proof,
    }


def listed_run_to_json(run: Run, counts: Mapping[JobState, int]) -> Json:
    """A run with its jobs counted."""
    return run_to_json(run) | {"counts": {state.value: counts.get(state, 0) for state in JobState}}


def found_job_to_json(job: Job, *, worker_ids: bool = True) -> Json:
    """A job that was looked for."""
    return job_to_json(job, worker_ids=worker_ids) | {"cause": job.cause, "said": job.said}


def queue_to_json(course: str, queue: CourseQueue, stranded: Sequence[Stranded]) -> Json:
    """What a course has in the queue."""
    return {
        "course": course,
        "depth": queue.depth,
        "oldest_queued_at": timestamp(queue.oldest),
        "stranded": [stranded_to_json(some) for some in stranded],
    }


def cause_to_json(cause: Cause, *, worker_ids: bool = True) -> Json:
    """Failures that have their reason and cause in common."""
    return {
        "reason": cause.reason,
        "cause": cause.text,
        "jobs": cause.jobs,
        "example": found_job_to_json(cause.example, worker_ids=worker_ids),
    }


def distribution_to_json(distribution: Distribution | None) -> Json | None:
    """A histogram."""
    if distribution is None:
        return None
    return {
        "median": distribution.median,
        "highest": distribution.highest,
        "bars": [{"from": bar.first, "to": bar.last, "jobs": bar.number} for bar in distribution.bars],
    }
