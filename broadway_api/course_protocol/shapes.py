"""The bodies of this protocol as JSON Schema: our own shapes under its names.

What an operator may forbid is not here: a configuration is kept as its course wrote it, and held against the cluster's
policy when a run is made from it.
"""

from __future__ import annotations

from broadway_api.policy import Policy
from broadway_api.schemas import ENV, REGISTRATION, Schema, stage_schema

#: What this protocol calls the fields of a stage → what we call them.
STAGE_FIELDS = {
    "image": "image",
    "env": "env",
    "entrypoint": "entry_point",
    "networking": "enable_networking",
    "privileged": "privileged",
    "hostname": "host_name",
    "timeout": "timeout",
    "memory": "memory",
    "cpuset_cpus": "cpuset_cpus",
    "logs": "logs",
}

_ANYTHING_GOES = Policy(
    allow_privileged=True,
    max_env_entries=100_000,
    max_stage_timeout=2**31,
)

#: No secrets in it, which this protocol does not know.
_ENV: Schema = ENV | {"title": "CourseEnvironment", "description": "name → value; a dollar sign means nothing"}


def _stage() -> Schema:
    ours = stage_schema(_ANYTHING_GOES)["properties"]
    stage = {name: ours[our_name] for name, our_name in STAGE_FIELDS.items()}
    stage["env"] = _ENV
    stage["memory"] = stage["memory"] | {"type": "string", "description": "a number with the unit b, k, m or g"}
    return {
        "title": "CourseStage",
        "type": "object",
        "required": ["image"],
        "properties": stage,
        "additionalProperties": False,
    }


STAGE: Schema = _stage()


def _pipeline(*, optional: bool) -> Schema:
    stages: Schema = {"type": "array", "maxItems": 1_000, "items": STAGE}
    return stages | ({"type": ["array", "null"]} if optional else {"minItems": 1})


GRADING_CONFIG: Schema = {
    "title": "GradingConfig",
    "type": "object",
    "required": ["student_pipeline"],
    "properties": {
        "student_pipeline": _pipeline(optional=False),
        "pre_processing_pipeline": _pipeline(optional=True),
        "post_processing_pipeline": _pipeline(optional=True),
        "env": _ENV | {"title": "AssignmentEnvironment", "type": ["object", "null"]},
    },
    "additionalProperties": False,
}

#: The entries are looked at when they stand in a run config of ours, where a long roster is read piece by piece.
GRADING_RUN: Schema = {
    "title": "GradingRun",
    "type": "object",
    "required": ["students_env"],
    "properties": {
        "students_env": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "pre_processing_env": _ENV,
        "post_processing_env": _ENV,
    },
    "additionalProperties": False,
}

WORKER: Schema = {
    "title": "CourseWorker",
    "type": "object",
    "required": ["hostname"],
    "properties": {"hostname": REGISTRATION["properties"]["hostname"]},
    "additionalProperties": False,
}

#: Lenient: whatever a grader has to say beside the outcome, the job must not stay unfinished for it.
JOB_RESULT: Schema = {
    "title": "CourseJobResult",
    "type": "object",
    "required": ["grading_job_id", "success"],
    "properties": {
        "grading_job_id": {"type": "string", "maxLength": 255},
        "success": {"type": "boolean"},
        "results": {"description": "what the grader says of each stage"},
        "logs": {"description": "`stdout` and `stderr` of all stages together"},
    },
}

#: What a worker sends over its WebSocket.
MESSAGE: Schema = {
    "title": "WorkerMessage",
    "type": "object",
    "required": ["type", "args"],
    "properties": {"type": {"enum": ["register", "job_result"]}, "args": {"type": "object"}},
    "additionalProperties": False,
}
