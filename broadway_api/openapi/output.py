"""The routes of `handlers/output.py`."""

from __future__ import annotations

from broadway_api.openapi import answers
from broadway_api.openapi.model import Access, Answer, Context, Operation, Parameter, Paths
from broadway_api.schemas import OUTPUT

_NO_JOB = {404: "no job has this id"}


def paths(_context: Context) -> Paths:
    """What jobs print, while they run and afterwards."""
    return {
        "/api/v1/grading_job/{job_id}/output": {
            "post": Operation(
                id="postOutput",
                summary="Pass on what a running job prints",
                description="Best effort, for those who follow the job; the result has all of its output.",
                access=Access.WORKER,
                body=OUTPUT,
                answers={200: Answer(description="passed on, if anybody follows", data=answers.OUTPUT_TAKEN)},
                refusals=_NO_JOB | {409: "the worker does not hold the job at this attempt"},
            ),
        },
        "/api/v1/grading_job/{job_id}/log": {
            "get": Operation(
                id="getJobLog",
                summary="What a job printed, or prints",
                description=(
                    "With `follow=true` server-sent events: `job`, `stage`, `output` and, as the last, `end`; "
                    "docs/protocol.md has their data."
                ),
                parameters=(
                    Parameter(
                        name="stage",
                        description="only this one, from 0",
                        schema={"type": "integer", "minimum": 0, "maximum": 1_000},
                    ),
                    Parameter(
                        name="follow",
                        description="as events, until the job has ended",
                        schema={"type": "boolean", "default": False},
                    ),
                    Parameter(
                        name="Last-Event-ID",
                        description="of events: what was seen last",
                        schema={"type": "string"},
                        place="header",
                    ),
                ),
                answers={
                    200: Answer(
                        description="its output, or events", data=answers.JOB_LOG, media_type="text/event-stream"
                    ),
                    204: Answer(description="of events: the job has ended, and this was its last event"),
                },
                refusals=_NO_JOB | {429: "too many wrong tokens came from this address, or too many logs are followed"},
            ),
        },
    }
