"""The shapes of request bodies as JSON Schema (2020-12): one schema a shape, which validates and documents."""

from __future__ import annotations

from typing import Any

from broadway_api.domain import Reason
from broadway_api.policy import Policy
from broadway_api.tenants import Role

Schema = dict[str, Any]

#: The longest string that Linux passes to a program, as an argument or as NAME=value (MAX_ARG_STRLEN), less a name.
_MAX_ARGUMENT = 131_072 - 1_024

#: What a variable may be called.
ENV_NAME = "^[A-Za-z_][A-Za-z0-9_]*$"
_NO_NUL = "^[^\\u0000]*$"

#: What is logged and shown in lists: no line feeds, nothing that a terminal obeys.
_ONE_LINE = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$"

#: 6 MiB to 2⁵⁰ bytes, nearly, in bytes or with a unit.
_MEMORY = (
    "^(([6-9][0-9]{6}|[1-9][0-9]{7,14})[bB]?|([6-9][0-9]{3}|[1-9][0-9]{4,11})[kK]"
    "|([6-9]|[1-9][0-9]{1,8})[mM]|[1-9][0-9]{0,5}[gG])$"
)

#: What a reference to an image is made of (https://github.com/distribution/reference), loosely.
_IMAGE = "^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$"

#: Of an attempt: what every store can keep.
_MAX_INTEGER = 2**31 - 1

ID: Schema = {"title": "Id", "type": "string", "pattern": "^[0-9a-f]{24}$"}

ENV: Schema = {
    "title": "Environment",
    "description": "name → value; `$NAME` takes NAME's value, `$$` at the beginning is a literal `$`",
    "type": "object",
    "propertyNames": {"pattern": ENV_NAME, "maxLength": 255},
    "additionalProperties": {
        "type": ["string", "number", "boolean"],
        "pattern": _NO_NUL,
        "maxLength": _MAX_ARGUMENT,
    },
}

REGISTRATION: Schema = {
    "title": "WorkerRegistration",
    "type": "object",
    "properties": {
        "hostname": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": _ONE_LINE},
        "slots": {"type": "integer", "minimum": 1, "maximum": 1_024, "default": 1},
        "runtime": {"type": "string", "maxLength": 64, "pattern": _ONE_LINE},
        "version": {"type": "string", "maxLength": 64, "pattern": _ONE_LINE},
        "labels": {
            "type": "object",
            "maxProperties": 64,
            "propertyNames": {"minLength": 1, "maxLength": 63, "pattern": _ONE_LINE},
            "additionalProperties": {"type": "string", "maxLength": 255, "pattern": _ONE_LINE},
        },
    },
    "additionalProperties": False,
}

HEARTBEAT: Schema = {
    "title": "Heartbeat",
    "type": "object",
    "properties": {
        "running": {
            "description": "the jobs whose leases to renew; left out: all that the worker holds",
            "type": "array",
            "maxItems": 1_024,
            "items": {
                "type": "object",
                "required": ["job_id"],
                "properties": {
                    "job_id": ID,
                    "attempt": {"type": "integer", "minimum": 1, "maximum": _MAX_INTEGER},
                },
                "additionalProperties": False,
            },
        }
    },
    "additionalProperties": False,
}

_STAGE: Schema = {"type": "integer", "minimum": 0, "maximum": 99}
_STREAM: Schema = {"enum": ["stdout", "stderr"]}

OUTPUT: Schema = {
    "title": "LiveOutput",
    "type": "object",
    "required": ["attempt"],
    "properties": {
        "attempt": {"type": "integer", "minimum": 1, "maximum": _MAX_INTEGER},
        "output": {
            "type": "array",
            "maxItems": 200,
            "items": {
                "type": "object",
                "required": ["stage", "stream", "start", "text"],
                "properties": {
                    "stage": _STAGE,
                    "stream": _STREAM,
                    "start": {
                        "description": "bytes of the stream's log before it, in UTF-8",
                        "type": "integer",
                        "minimum": 0,
                        "maximum": 2**40,
                    },
                    "text": {"type": "string", "minLength": 1, "maxLength": 65_536},
                },
                "additionalProperties": False,
            },
        },
        "stages": {
            "description": "how far stages are, those that have begun",
            "type": "array",
            "maxItems": 100,
            "items": {
                "type": "object",
                "required": ["stage", "ended"],
                "properties": {
                    "stage": _STAGE,
                    "ended": {"type": "boolean"},
                    "exit_code": {"type": ["integer", "null"], "minimum": -_MAX_INTEGER, "maximum": _MAX_INTEGER},
                    "reason": {"enum": [*(reason.value for reason in Reason), None]},
                    "truncated": {
                        "description": "streams of which no more is kept",
                        "type": "array",
                        "maxItems": 2,
                        "items": _STREAM,
                    },
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}

#: Seed tokens may be short; what no header carries can be none.
_TOKENS: Schema = {
    "type": "array",
    "maxItems": 100,
    "items": {"type": "string", "minLength": 1, "maxLength": 512, "pattern": "^[!-~]+$"},
}

COURSE_ID = "^[-A-Za-z0-9_]{1,128}$"

COURSE: Schema = {
    "title": "Course",
    "type": "object",
    "properties": {
        "weight": {"type": "number", "minimum": 0.001, "maximum": 1_000, "default": 1},
        "tokens": _TOKENS,
        "query_tokens": _TOKENS,
    },
    "additionalProperties": False,
}

COURSE_CONFIG: Schema = {
    "title": "CourseConfig",
    "type": "object",
    "propertyNames": {"pattern": COURSE_ID},
    "additionalProperties": COURSE,
}

TOKEN: Schema = {
    "title": "NewToken",
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": [role.value for role in Role]},
        "course": {"type": "string", "pattern": COURSE_ID},
        "label": {"type": "string", "maxLength": 100, "pattern": _ONE_LINE, "default": ""},
        "expires_in": {"description": "seconds", "type": "number", "minimum": 1, "maximum": 10 * 365 * 86_400},
    },
    "additionalProperties": False,
}

RETRY: Schema = {
    "title": "Retry",
    "type": "object",
    "properties": {
        "students": {
            "description": "retry those whose roster entry has all the names and values of one of these",
            "type": "array",
            "minItems": 1,
            "maxItems": 10_000,
            "items": ENV | {"title": "RosterFilter", "minProperties": 1, "maxProperties": 1_000},
        }
    },
    "additionalProperties": False,
}

#: What a secret may be called.
SECRET_NAME = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"  # noqa: S105  # a pattern

SECRET: Schema = {
    "title": "Secret",
    "type": "object",
    "required": ["value"],
    "properties": {
        "value": {"type": "string", "minLength": 4, "maxLength": 16_384, "pattern": _NO_NUL, "writeOnly": True},
    },
    "additionalProperties": False,
}

LOGIN: Schema = {
    "title": "Login",
    "type": "object",
    "required": ["token"],
    "properties": {"token": {"type": "string", "minLength": 1, "maxLength": 4_096, "writeOnly": True}},
    "additionalProperties": False,
}

#: Open to more fields, here and in `info`: graders of other releases have them.
RESULT: Schema = {
    "title": "JobResult",
    "type": "object",
    "required": ["success"],
    "properties": {
        "success": {"type": "boolean"},
        "attempt": {"type": "integer", "minimum": 1, "maximum": _MAX_INTEGER},
        "reason": {
            "enum": [reason for reason in Reason if reason not in ("worker_lost", "secret_unavailable", "cancelled")]
            + [None]
        },
        "info": {"type": "array", "maxItems": 100, "items": {"type": "object"}, "default": []},
    },
}

#: What one worker reports at a time: as many as it may hold.
RESULTS: Schema = {
    "title": "JobResults",
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1_024,
            "items": RESULT
            | {
                "title": "NamedJobResult",
                "required": ["job_id", "success"],
                "properties": {"job_id": ID} | RESULT["properties"],
            },
        }
    },
    "additionalProperties": False,
}


def env_schema(policy: Policy) -> Schema:
    """The environment of a run, a stage or a student."""
    return ENV | {"maxProperties": policy.max_env_entries}


def stage_env_schema(policy: Policy) -> Schema:
    """The environment of a stage, where a secret may stand for a value."""
    value = ENV["additionalProperties"] | {
        "type": [*ENV["additionalProperties"]["type"], "object"],
        "required": ["secret"],
        "properties": {"secret": {"type": "string", "pattern": SECRET_NAME}},
        "additionalProperties": False,
    }
    return env_schema(policy) | {
        "title": "StageEnvironment",
        "description": ENV["description"] + '; `{"secret": "NAME"}` takes the value of a secret of the course',
        "additionalProperties": value,
    }


#: A label as it is required: a name, or a name with a value. A requirement is some of them with commas between them.
_LABEL = "^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}(=[A-Za-z0-9._/-]{0,63})?$"

REQUIRE: Schema = {
    "title": "Requirement",
    "description": "labels that the worker must have: `gpu` with any value, `arch=arm64` with that one",
    "type": "array",
    "maxItems": 8,
    "items": {"type": "string", "pattern": _LABEL},
}

#: Of runs; 0 is that of any other run.
MIN_PRIORITY, MAX_PRIORITY = -10, 10


def stage_schema(policy: Policy) -> Schema:
    """A stage, within what the cluster allows."""
    return {
        "title": "Stage",
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {"type": "string", "minLength": 1, "maxLength": 512, "pattern": _IMAGE},
            "env": stage_env_schema(policy),
            "entry_point": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1_000,
                "items": {"type": "string", "pattern": _NO_NUL, "maxLength": _MAX_ARGUMENT},
            },
            "enable_networking": _flag(allowed=policy.allow_networking),
            "host_name": {
                "type": "string",
                "maxLength": 63,
                "pattern": "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
            },
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": policy.max_stage_timeout, "default": 30},
            "memory": {
                "description": "bytes, or a number with the unit k, m or g",
                "type": ["integer", "string"],
                "minimum": 6 * 1024 * 1024,  # what Docker Engine asks for at least
                "maximum": 2**50,
                "pattern": _MEMORY,
            },
            # The least that Docker Engine takes; what is less than a billionth would be no limit at all.
            "cpus": {"type": "number", "minimum": 0.01, "maximum": policy.max_stage_cpus},
            "pids": {"type": "integer", "minimum": 1, "maximum": policy.max_stage_pids},
            "cpuset_cpus": {
                "description": "which CPUs, by number: 0-2,5",
                "type": "string",
                "maxLength": 255,
                "pattern": "^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$",
            },
            "logs": {"type": "boolean", "default": True},
            "user": {"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_.-]+)?$"},
            "working_dir": {"type": "string", "maxLength": 4_096, "pattern": "^/[^\\u0000]*$"},
            "privileged": _flag(allowed=policy.allow_privileged),
            "require": REQUIRE,
            "results": {
                "description": "it writes /job/results.json, which is read when it has ended",
                "type": "boolean",
                "default": False,
            },
            "read_only": {"description": "whether the root file system is; /job and /tmp never are", "type": "boolean"},
        },
        "additionalProperties": False,
    }


def _flag(*, allowed: bool) -> Schema:
    return {"type": "boolean", "default": False} | ({} if allowed else {"const": False})


def run_config_schema(policy: Policy) -> Schema:
    """The one file that a course hands in."""
    pipeline = {
        "type": "array",
        "minItems": 1,
        "maxItems": policy.max_stages,
        "items": stage_schema(policy),
        "contains": {"type": "object", "required": ["results"], "properties": {"results": {"const": True}}},
        "minContains": 0,
        "maxContains": 1,
    }
    env = env_schema(policy)
    return {
        "title": "RunConfig",
        "type": "object",
        "required": ["students", "student_pipeline"],
        "properties": {
            "students": {"type": "array", "minItems": 1, "maxItems": policy.max_students, "items": env},
            "student_pipeline": pipeline,
            "pre_processing_pipeline": pipeline,
            "post_processing_pipeline": pipeline,
            "env": env,
            "require": REQUIRE,
        },
        "additionalProperties": False,
    }
