"""The routes of `handlers/course_protocol/`."""

from __future__ import annotations

from broadway_api.course_protocol import words
from broadway_api.course_protocol.shapes import GRADING_CONFIG, GRADING_RUN, WORKER
from broadway_api.openapi import answers
from broadway_api.openapi.model import Answer, Context, Operation, Paths
from broadway_api.schemas import Schema

_NO_NAME = {404: "what stands in the path is not the name of anything"}
_NOT_THERE = _NO_NAME | {400: "the request is not valid, or names something that is not there"}

_COUNT: Schema = {"type": "integer", "minimum": 0}


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


_STATES: Schema = {"type": "object", "additionalProperties": {"enum": sorted(set(words.JOB.values()))}}
_STATES_OR_NULL: Schema = _STATES | {"type": ["object", "null"]}
_ENVS: Schema = {
    "description": "job → variable → its values over the job's stages",
    "type": "object",
    "additionalProperties": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
}
_NODE = _object(
    {
        "hostname": {"type": "string"},
        "jobs_processed": _COUNT,
        "busy": {"type": "boolean"},
        "alive": {"type": "boolean"},
    }
)
_DONE = {200: Answer(description="done", data=_object({}))}


def paths(_: Context) -> Paths:
    """What courses and graders of the course protocol call."""
    return {
        "/api/v1/grading_config/{course}/{assignment}": {
            "post": Operation(
                id="putGradingConfig",
                summary="Configure an assignment",
                body=GRADING_CONFIG,
                answers=_DONE,
                refusals=_NO_NAME,
            ),
            "get": Operation(
                id="getGradingConfig",
                summary="An assignment's configuration as it was sent",
                answers={200: Answer(description="the configuration", data=GRADING_CONFIG)},
                refusals=_NOT_THERE,
            ),
        },
        "/api/v1/grading_run/{course}/{assignment}": {
            "post": Operation(
                id="gradeAssignment",
                summary="Make a run of an assignment and start it",
                body=GRADING_RUN,
                answers={200: Answer(description="started", data=answers.RUN_CREATED)},
                refusals=_NOT_THERE,
            ),
        },
        "/api/v1/grading_run_status/{course}/{run}": {
            "get": Operation(
                id="getGradingRunStatus",
                summary="The states of a run and of its jobs that have been scheduled",
                answers={
                    200: Answer(
                        description="the states",
                        data=_object(
                            {
                                "state": {"enum": sorted(set(words.RUN.values()))},
                                "pre_processing_job_state": _STATES_OR_NULL,
                                "post_processing_job_state": _STATES_OR_NULL,
                                "student_jobs_state": _STATES,
                            }
                        ),
                    )
                },
                refusals=_NOT_THERE,
            ),
        },
        "/api/v1/grading_run_env/{course}/{run}": {
            "get": Operation(
                id="getGradingRunEnv",
                summary="The environments of a run's jobs",
                answers={
                    200: Answer(
                        description="the environments",
                        data=_object({"pre_processing_env": _ENVS, "post_processing_env": _ENVS, "student_env": _ENVS}),
                    )
                },
                refusals=_NOT_THERE,
            ),
        },
        "/api/v1/grading_job_log/{course}/{job}": {
            "get": Operation(
                id="getGradingJobLog",
                summary="What an ended job printed",
                answers={
                    200: Answer(
                        description="the output of all its stages",
                        data=_object({"stdout": {"type": "string"}, "stderr": {"type": "string"}}),
                    )
                },
                refusals=_NOT_THERE,
            ),
        },
        "/api/v1/worker/{course}/{scope}": {
            "get": Operation(
                id="listWorkerNodes",
                summary="The fleet as a course sees it",
                answers={
                    200: Answer(
                        description="the workers", data=_object({"worker_nodes": {"type": "array", "items": _NODE}})
                    )
                },
                refusals={404: "the scope is not `all`"},
            ),
        },
        "/api/v1/queue/{course}/length": {
            "get": Operation(
                id="getQueueLength",
                summary="How many jobs of a course are queued",
                answers={200: Answer(description="the number", data=_object({"length": _COUNT}))},
                refusals=_NO_NAME,
            ),
        },
        "/api/v1/queue/{course}/{job}/position": {
            "get": Operation(
                id="getQueuePosition",
                summary="How many jobs stand before one that is queued",
                answers={200: Answer(description="0: it is the next", data=_object({"position": _COUNT}))},
                refusals=_NO_NAME | {400: "there is no such job, or it is not queued"},
            ),
        },
        "/api/v1/stream/{course}/{job}": {
            "get": Operation(
                id="streamJob",
                summary="A job's states and positions as server-sent events",
                answers={200: Answer(description="the events", media_type="text/event-stream")},
                refusals=_NOT_THERE,
            ),
        },
        "/api/v1/worker/{worker_id}": {
            "post": Operation(
                id="registerNamedWorker",
                summary="Join the cluster under an id of one's own choice",
                body=WORKER,
                answers={200: Answer(description="registered", data=_object({"heartbeat": _COUNT}))},
                refusals={
                    400: "the request is not valid, or the id is that of a worker that is alive",
                    405: "the id is none that a worker can have",
                },
            ),
        },
        "/api/v1/heartbeat/{worker}": {
            "post": Operation(
                id="namedHeartbeat", summary="Say that the worker lives", answers=_DONE, refusals=_NO_NAME
            ),
        },
        "/api/v1/worker_ws/{worker}": {
            "get": Operation(
                id="connectWorker",
                summary="Work over a WebSocket",
                description="`docs/protocol.md` describes the messages.",
                answers={101: Answer(description="switching to WebSocket")},
                refusals=_NO_NAME | {400: "the handshake is faulty", 426: "this is no WebSocket handshake"},
            ),
        },
    }
