"""The routes of `handlers/courses.py`."""

from __future__ import annotations

from broadway_api.domain import JobState, RunState
from broadway_api.openapi import answers
from broadway_api.openapi.model import Answer, Context, Operation, Parameter, Paths
from broadway_api.schemas import COURSE_ID, ID, MAX_PRIORITY, MIN_PRIORITY, RETRY, run_config_schema

_NO_RUN = {404: "no run has this id"}
_THIS_RUN = {"grading_run_id": "$response.body#/data/grading_run_id"}

LIMIT = Parameter(
    name="limit",
    description="how many at a time",
    schema={"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100},
)

COURSE_NAMED = Parameter(
    name="course",
    description="whose it is; left out: the token's course, or `default`",
    schema={"type": "string", "pattern": COURSE_ID},
)


def paths(context: Context) -> Paths:
    """What courses call."""
    return {
        "/api/v1/grading_run": {
            "post": Operation(
                id="createRun",
                summary="Create a grading run",
                description="Nothing runs until it is started. Env values such as `$NAME` must name something.",
                parameters=(
                    Parameter(
                        name="Idempotency-Key",
                        description="names this creation: repeated with it, the request creates nothing more",
                        schema={"type": "string", "pattern": "^[!-~]{1,255}$"},
                        place="header",
                    ),
                    COURSE_NAMED,
                    Parameter(
                        name="priority",
                        description="of its jobs in the queue: the higher, the sooner, in three of four turns at most",
                        schema={"type": "integer", "minimum": MIN_PRIORITY, "maximum": MAX_PRIORITY},
                    ),
                ),
                body=run_config_schema(context.policy),
                answers={200: Answer(description="created", data=answers.RUN_CREATED)},
                refusals={404: "there is no such course", 422: "the Idempotency-Key was used for another body"},
                links=dict.fromkeys(("startRun", "getRun", "cancelRun", "retryRun"), _THIS_RUN),
            ),
            "get": Operation(
                id="listRuns",
                summary="List grading runs, newest first",
                parameters=(
                    Parameter(name="state", description="only these", schema=answers.words("RunState", RunState)),
                    Parameter(
                        name="course", description="only this course's", schema={"type": "string", "minLength": 1}
                    ),
                    LIMIT,
                    Parameter(name="after", description="`next` of the page before", schema=ID),
                ),
                answers={200: Answer(description="a page", data=answers.RUN_LIST)},
            ),
        },
        "/api/v1/grading_run/{grading_run_id}": {
            "post": Operation(
                id="startRun",
                summary="Start a grading run",
                answers={200: Answer(description="started", data=answers.RUN_MOVED)},
                refusals=_NO_RUN | {400: "the id is malformed, or the run was started before"},
                links=dict.fromkeys(("getRun", "cancelRun"), _THIS_RUN) | {"claimJobs": {}},
            ),
            "get": Operation(
                id="getRun",
                summary="How a grading run is doing",
                parameters=(
                    Parameter(
                        name="jobs",
                        description="also list these of its jobs",
                        schema={"enum": ["all", "unfinished", *(state.value for state in JobState)]},
                    ),
                    LIMIT,
                    Parameter(
                        name="after",
                        description="`next` of the page before",
                        schema={"type": "integer", "minimum": 0, "maximum": 2**31},
                    ),
                ),
                answers={200: Answer(description="its state", data=answers.RUN_STATUS)},
                refusals=_NO_RUN,
            ),
        },
        "/api/v1/grading_run/{grading_run_id}/cancel": {
            "post": Operation(
                id="cancelRun",
                summary="End a grading run now",
                answers={200: Answer(description="cancelled, now or before", data=answers.RUN_MOVED)},
                refusals=_NO_RUN | {400: "the id is malformed, or the run has ended otherwise"},
                links={"retryRun": _THIS_RUN},
            ),
        },
        "/api/v1/grading_run/{grading_run_id}/retry": {
            "post": Operation(
                id="retryRun",
                summary="Try jobs of an ended grading run again",
                description="Without a body: every job that failed or was cancelled.",
                body=RETRY,
                needs_body=False,
                answers={200: Answer(description="queued again", data=answers.RUN_RETRIED)},
                refusals=_NO_RUN | {400: "the request is not valid, the run has not ended, or has no such job"},
            ),
        },
        "/api/v1/grading_run/{grading_run_id}/events": {
            "get": Operation(
                id="followRun",
                summary="Follow a grading run",
                description="Server-sent events: `event: run` with the data of `getRun` after each change.",
                parameters=(
                    Parameter(
                        name="Last-Event-ID",
                        description="what was seen last",
                        schema={"type": "string"},
                        place="header",
                    ),
                ),
                answers={
                    200: Answer(description="events, until the run has ended", media_type="text/event-stream"),
                    204: Answer(description="the run has ended, and this was its last event"),
                },
                refusals=_NO_RUN,
            ),
        },
        "/api/v1/grading_run/{grading_run_id}/deliveries": {
            "get": Operation(
                id="listDeliveries",
                summary="What a webhook is told of a grading run",
                description="One for each end of the run, the oldest first, for seven days.",
                answers={200: Answer(description="what came of them", data=answers.DELIVERY_LIST)},
                refusals=_NO_RUN,
            ),
        },
    }
