"""The routes of `handlers/workers.py`."""

from __future__ import annotations

from broadway_api.openapi import answers
from broadway_api.openapi.model import Access, Answer, Context, Operation, Parameter, Paths
from broadway_api.schemas import HEARTBEAT, ID, REGISTRATION, RESULT, RESULTS, Schema

_REGISTERED = {200: Answer(description="registered", data=answers.REGISTERED)}
_THIS_JOB = {"job_id": "$response.body#/data/job_id"}

#: A result as the specification prints it.
_WRAPPED_RESULT: Schema = {
    "title": "WrappedJobResult",
    "type": "object",
    "required": ["data"],
    "properties": {"status": {}, "data": RESULT},
}

_HOLDING = Parameter(
    name="holding",
    description="jobs that the worker knows it holds; others that it was given come again",
    schema={"type": "array", "items": ID, "maxItems": 1_024},
)

#: Of calls that bring results.
_NEXT = Parameter(
    name="slots",
    description="also take up to so many jobs off the queue, answered as `jobs`; it is not waited for them",
    schema={"type": "integer", "minimum": 1, "maximum": 1_024},
)


def paths(context: Context) -> Paths:
    """What graders call, and what staff ask of graders."""
    return {
        "/api/v1/worker_register": {
            "post": Operation(
                id="registerWorker",
                summary="Join the cluster",
                body=REGISTRATION,
                needs_body=False,
                answers=_REGISTERED,
                links={"deregisterWorker": {"worker_id": "$response.body#/data/worker_id"}},
            ),
            "get": Operation(
                id="registerPlainWorker",
                summary="Join the cluster as a worker of one slot, named by its address",
                answers=_REGISTERED,
            ),
        },
        "/api/v1/grader_register": {
            "post": Operation(
                id="registerGrader",
                summary="Older name of `worker_register`",
                body=REGISTRATION,
                needs_body=False,
                answers=_REGISTERED,
            ),
            "get": Operation(id="registerPlainGrader", summary="Older name of `worker_register`", answers=_REGISTERED),
        },
        "/api/v1/heartbeat": {
            "post": Operation(
                id="heartbeat",
                summary="Say that the worker lives, and renew its leases",
                description="Without a body, of every job that it holds.",
                access=Access.WORKER,
                body=HEARTBEAT,
                needs_body=False,
                answers={200: Answer(description="heard", data=answers.HEARD)},
            ),
        },
        "/api/v1/grading_job": {
            "get": Operation(
                id="claimJobs",
                summary="Take jobs off the queue",
                access=Access.WORKER,
                parameters=(
                    Parameter(
                        name="slots",
                        description="up to so many jobs, answered as `jobs`; left out: one job, answered as it is",
                        schema={"type": "integer", "minimum": 1, "maximum": 1_024},
                    ),
                    _HOLDING,
                    Parameter(
                        name="Prefer",
                        description="`wait=20` holds the request so many seconds, at most 60, until there is work",
                        schema={"type": "string"},
                        place="header",
                    ),
                ),
                answers={
                    200: Answer(
                        description="the worker's now",
                        data={"anyOf": [answers.CLAIMED_JOB, answers.CLAIMED_JOBS]},
                        headers={"Preference-Applied": "how long the request was ready to wait"},
                    )
                },
                refusals={context.queue_empty_code: "the queue is empty"},
                links=dict.fromkeys(("reportJob", "getJob", "getJobLog"), _THIS_JOB),
            ),
            "post": Operation(
                id="reportJobs",
                summary="Report what came of several jobs, and take the next ones",
                description="Each result is taken or refused for itself.",
                access=Access.WORKER,
                parameters=(_NEXT, _HOLDING),
                body=RESULTS,
                answers={200: Answer(description="what became of each result", data=answers.REPORTED_JOBS)},
                links={"claimJobs": {}},
            ),
        },
        "/api/v1/grading_job/{job_id}": {
            "post": Operation(
                id="reportJob",
                summary="Report what came of a job",
                access=Access.WORKER,
                parameters=(_NEXT, _HOLDING),
                body={"anyOf": [RESULT, _WRAPPED_RESULT]},
                answers={200: Answer(description="taken, now or before", data=answers.REPORTED)},
                refusals={404: "no job has this id", 409: "the worker does not hold the job at this attempt"},
                links=dict.fromkeys(("getJob", "getJobLog"), _THIS_JOB) | {"claimJobs": {}},
            ),
            "get": Operation(
                id="getJob",
                summary="Everything about a job but its output",
                answers={200: Answer(description="the job", data=answers.JOB)},
                refusals={404: "no job has this id"},
            ),
        },
        "/api/v1/worker/{worker_id}": {
            "delete": Operation(
                id="deregisterWorker",
                summary="Leave the cluster",
                description="Jobs that the worker still holds go back to the front of the queue.",
                parameters=(
                    Parameter(
                        name="crashed",
                        description="its jobs died with it, so they cost an attempt",
                        schema={"type": "boolean", "default": False},
                    ),
                ),
                answers={200: Answer(description="gone", data=answers.HANDED_BACK)},
            ),
        },
        "/api/v1/workers": {
            "get": Operation(
                id="listWorkers",
                summary="List the workers",
                answers={200: Answer(description="all of them", data=answers.WORKER_LIST)},
            ),
        },
        "/api/v1/workers/{worker_id}/drain": {
            "post": Operation(
                id="drainWorker",
                summary="Give a worker no new jobs",
                answers={200: Answer(description="it drains", data=answers.WORKER_NAMED)},
            ),
        },
        "/api/v1/workers/{worker_id}/resume": {
            "post": Operation(
                id="resumeWorker",
                summary="Give a worker jobs again, also out of quarantine",
                answers={200: Answer(description="it is back", data=answers.WORKER_NAMED)},
            ),
        },
    }
