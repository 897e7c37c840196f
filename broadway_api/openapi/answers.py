"""The shapes of answers' `data` as JSON Schema. Clients must bear names that are not here: later releases add some."""

from __future__ import annotations

from typing import Any

from broadway_api.domain import DeliveryState, JobState, JobType, Reason, RunState, WorkerState
from broadway_api.policy import Policy
from broadway_api.results import RESULTS
from broadway_api.schemas import ENV, ID, Schema, stage_schema
from broadway_api.tenants import Role

TEXT: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time", "description": "UTC, with milliseconds"}
COUNT: Schema = {"type": "integer", "minimum": 0}


def shape(title: str, properties: dict[str, Schema], *, optional: tuple[str, ...] = (), text: str = "") -> Schema:
    """An object of these properties, all of them there but the `optional` ones."""
    schema: dict[str, Any] = {"title": title, "type": "object"}
    if text:
        schema["description"] = text
    return schema | {"required": [name for name in properties if name not in optional], "properties": properties}


def list_of(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def words(title: str, values: Any) -> Schema:
    """One of an enum's words."""
    return {"title": title, "enum": [str(value) for value in values]}


#: What says what kind a value is, and not which values of that kind a config may have.
_KIND = ("type", "items", "properties", "required", "additionalProperties")


def _kinds(schema: Any) -> Any:
    """A schema of configs without the cluster's limits, which may have changed since."""
    if not isinstance(schema, dict):
        return schema
    return {
        word: {name: _kinds(part) for name, part in value.items()} if word == "properties" else _kinds(value)
        for word, value in schema.items()
        if word in _KIND and value is not False
    }


#: A roster entry, as its course wrote it.
STUDENT: Schema = {"title": "Student"} | _kinds(ENV)

RUN_STATE = words("RunState", RunState)
JOB_STATE = words("JobState", JobState)
REASON = words("Reason", Reason)

#: What a stage's run is told by; graders of other releases have more names, and theirs may have other types.
STAGE_INFO: Schema = {
    "title": "StageInfo",
    "description": "what a grader says of one stage that ran: exit_code, reason, message, started_at, finished_at, …",
    "type": "object",
    "additionalProperties": True,
}

# --- runs ------------------------------------------------------------------------------------------------------------

RUN_CREATED = shape("RunCreated", {"grading_run_id": ID})
RUN_MOVED = shape("RunMoved", {"grading_run_id": ID, "state": RUN_STATE})
RUN_RETRIED = shape("RunRetried", {"grading_run_id": ID, "jobs": COUNT | {"description": "that are tried again"}})

_RUN: dict[str, Schema] = {
    "grading_run_id": ID,
    "course": TEXT,
    "state": RUN_STATE,
    "priority": {"type": "integer", "description": "of its jobs in the queue, 0 that of most; the higher, the sooner"},
    "success": or_null(BOOLEAN) | {"description": "null until the run has ended"},
    "created_at": TIME,
    "started_at": or_null(TIME),
    "finished_at": or_null(TIME),
}
RUN = shape("Run", _RUN)
RUN_LIST = shape("RunList", {"grading_runs": list_of(RUN), "next": or_null(ID)}, text="`next` is for `?after=`")

_SCORE: Schema = {"type": "number"}
_JOB: dict[str, Schema] = {
    "job_id": ID,
    "type": words("JobType", JobType),
    "state": JOB_STATE,
    "reason": or_null(REASON),
    "score": or_null(_SCORE),
    "max_score": or_null(_SCORE),
    "attempt": COUNT,
    "worker_id": or_null(ID),
    "student": or_null(STUDENT),
    "queued_at": or_null(TIME),
    "started_at": or_null(TIME),
    "finished_at": or_null(TIME),
}
_STRANDED = list_of(
    shape(
        "Stranded",
        {"require": list_of(TEXT), "jobs": COUNT, "message": TEXT},
        text="queued jobs that no worker can run, and what is missing",
    )
)
_CAUSE = TEXT | {"description": "of its failure, else empty"}
_SAID = TEXT | {"description": "the line that the cause was made of"}
_END_JOB = or_null(shape("EndJob", {"job_id": ID, "state": JOB_STATE, "reason": or_null(REASON)}))

RUN_STATUS = shape(
    "RunStatus",
    _RUN
    | {
        "counts": shape("JobCounts", {state.value: COUNT for state in JobState}),
        "reasons": {
            "description": "how many jobs did not succeed for each reason",
            "type": "object",
            "propertyNames": REASON,
            "additionalProperties": COUNT,
        },
        "stranded": _STRANDED,
        "eta_seconds": or_null({"type": "integer"}),
        "pre_processing_job": _END_JOB,
        "post_processing_job": _END_JOB,
        "jobs": list_of(shape("JobEntry", _JOB)) | {"description": "with `?jobs=` only"},
        "next": or_null(TEXT) | {"description": "with `?jobs=` only; for `?after=`"},
    },
    optional=("jobs", "next"),
)

# --- jobs ------------------------------------------------------------------------------------------------------------


#: A stage as its config has it, its defaults said.
STAGE: Schema = {"title": "ConfiguredStage"} | _kinds(stage_schema(Policy()))

JOB = shape(
    "Job",
    _JOB
    | {
        "grading_run_id": ID,
        "priority": {"type": "integer"},
        "require": list_of(TEXT) | {"description": "labels that its worker must have"},
        "position": or_null(COUNT)
        | {"description": "jobs before it; null if it is not queued, or no worker can run it"},
        "stranded": or_null(TEXT) | {"description": "why no worker can run it"},
        "cause": _CAUSE,
        "said": _SAID,
        "worker_hostname": or_null(TEXT),
        "pipeline": list_of(STAGE),
        "results": or_null(RESULTS),
        "info": list_of(STAGE_INFO),
        "attempts": list_of(
            shape(
                "Attempt",
                {
                    "attempt": COUNT,
                    "worker_id": or_null(ID),
                    "hostname": or_null(TEXT),
                    "reason": or_null(REASON),
                    "started_at": TIME,
                    "finished_at": TIME,
                },
            )
        ),
    },
)


JOB_LOG = shape(
    "JobLog",
    {
        "job_id": ID,
        "attempt": or_null(COUNT),
        "stages": list_of(shape("StageLog", {"stage": COUNT, "stdout": TEXT, "stderr": TEXT})),
    },
)

# --- workers ---------------------------------------------------------------------------------------------------------

REGISTERED = shape("Registered", {"worker_id": ID, "heartbeat": COUNT | {"description": "seconds between two"}})
_NAMES = list_of(TEXT) | {"description": "a name for each place where it is followed; one that is new wants the tail"}
HEARD = shape(
    "Heard",
    {
        "lost": list_of(ID) | {"description": "named jobs that are no longer this worker's"},
        "followed": {
            "description": "named jobs whose output is followed, if there are any",
            "type": "object",
            "additionalProperties": _NAMES,
        },
    },
    optional=("followed",),
)
OUTPUT_TAKEN = shape("OutputTaken", {"followed": _NAMES})
HANDED_BACK = shape("HandedBack", {"handed_back": list_of(ID)})
WORKER_NAMED = shape("WorkerNamed", {"worker_id": ID})
WORKER_LIST = shape(
    "WorkerList",
    {
        "workers": list_of(
            shape(
                "Worker",
                {
                    "worker_id": ID,
                    "hostname": TEXT,
                    "slots": COUNT,
                    "runtime": TEXT,
                    "version": TEXT,
                    "labels": {"type": "object", "additionalProperties": TEXT},
                    "state": words("WorkerState", WorkerState),
                    "quarantined_until": or_null(TIME),
                    "registered_at": TIME,
                    "last_seen": TIME,
                    "running": list_of(ID),
                    "jobs_processed": COUNT,
                },
            )
        )
    },
)

_TOLD_NOBODY = list_of(TEXT) | {"description": "the variables whose values must not be told, if there are any"}

CLAIMED_STAGE: Schema = STAGE | {
    "title": "ClaimedStage",
    "properties": STAGE["properties"] | {"secrets": _TOLD_NOBODY},
}

CLAIMED_JOB = shape(
    "ClaimedJob",
    {
        "job_id": ID,
        "stages": list_of(CLAIMED_STAGE) | {"description": "with `env` merged and resolved"},
        "attempt": COUNT,
        "lease_seconds": {"type": "number"},
        "students": list_of(STUDENT) | {"description": "the roster; pre- and post-processing jobs only"},
        "student_jobs": list_of(
            shape(
                "EndedStudentJob",
                {
                    "job_id": ID,
                    "state": JOB_STATE,
                    "reason": or_null(REASON),
                    "score": or_null(_SCORE),
                    "max_score": or_null(_SCORE),
                },
            )
        )
        | {"description": "how each student's job ended, in the roster's order; post-processing jobs only"},
    },
    optional=("students", "student_jobs"),
)
CLAIMED_JOBS = shape("ClaimedJobs", {"jobs": list_of(CLAIMED_JOB)})

_NEXT_JOBS = list_of(CLAIMED_JOB) | {"description": "with `?slots=` only: the next jobs, perhaps none"}
REPORTED = shape("Reported", {"job_id": ID, "state": JOB_STATE, "jobs": _NEXT_JOBS}, optional=("jobs",))
REPORTED_JOBS = shape(
    "ReportedJobs",
    {
        "results": list_of(
            shape(
                "ReportedJob",
                {
                    "job_id": ID,
                    "state": JOB_STATE,
                    "status": {"enum": [404, 409], "description": "of a result that was refused"},
                    "message": TEXT | {"description": "why it was refused"},
                },
                optional=("state", "status", "message"),
            )
        )
        | {"description": "in the order in which they were sent"},
        "jobs": _NEXT_JOBS,
    },
    optional=("jobs",),
)

DELIVERY_LIST = shape(
    "DeliveryList",
    {
        "deliveries": list_of(
            shape(
                "Delivery",
                {
                    "delivery_id": TEXT,
                    "state": words("DeliveryState", DeliveryState),
                    "attempts": COUNT,
                    "created_at": TIME,
                    "next_attempt_at": or_null(TIME),
                    "heard_at": or_null(TIME),
                    "fault": or_null(TEXT) | {"description": "why the last attempt that is over was not heard"},
                },
            )
        )
    },
)

SECRET_CHANGED = shape("SecretChanged", {"name": TEXT, "changed_at": TIME})
SECRET_LIST = shape("SecretList", {"secrets": list_of(SECRET_CHANGED)})
SECRET_DELETED = shape("SecretDeleted", {"name": TEXT})
SECRETS_RESEALED = shape("SecretsResealed", {"secrets": COUNT})
HEALTH = shape(
    "Health",
    {"store": {"const": "ok"}, "loop_lag_seconds": {"type": "number", "minimum": 0, "description": "operators only"}},
    optional=("loop_lag_seconds",),
)
READINESS = shape("Readiness", {"store": {"const": "ok"}})

# --- courses and tokens ----------------------------------------------------------------------------------------------

_COUNT_OF_TOKENS = COUNT | {"description": "how many it was configured with"}
COURSE = shape(
    "CourseEntry",
    {
        "course": TEXT,
        "weight": {"type": "number"},
        "tokens": _COUNT_OF_TOKENS,
        "query_tokens": _COUNT_OF_TOKENS,
        "from_file": BOOLEAN | {"description": "the course config names it"},
    },
)
COURSE_LIST = shape("CourseList", {"courses": list_of(COURSE)})
COURSE_NAMED = shape("CourseNamed", {"course": TEXT})

_TOKEN: dict[str, Schema] = {
    "token_id": ID,
    "role": words("Role", Role),
    "course": or_null(TEXT),
    "label": TEXT,
    "state": {"enum": ["valid", "expired", "revoked"]},
    "created_at": TIME,
    "expires_at": or_null(TIME),
    "revoked_at": or_null(TIME),
}
TOKEN = shape("Token", _TOKEN)
TOKEN_MADE = shape("TokenMade", _TOKEN | {"token": TEXT | {"description": "its text, shown this once"}})
TOKEN_LIST = shape("TokenList", {"tokens": list_of(TOKEN)})

# --- the dashboard ---------------------------------------------------------------------------------------------------

SESSION = shape(
    "Session",
    {
        "role": words("Role", Role),
        "courses": list_of(TEXT) | {"description": "those that it sees; none: it sees all"},
        "expires_at": TIME,
        "proof": TEXT | {"description": "for `X-Broadway-Proof`, with every request that changes something"},
    },
)
NOTHING = shape("Nothing", {})

# --- what people look at ---------------------------------------------------------------------------------------------

_FOUND_JOB = shape("FoundJob", _JOB | {"cause": _CAUSE, "said": _SAID})
FOUND_JOBS = shape("FoundJobs", {"jobs": list_of(_FOUND_JOB), "total": COUNT | {"description": "how many fit"}})
FAILURES = shape(
    "Failures",
    {
        "failed": COUNT,
        "causes": list_of(shape("Cause", {"reason": REASON, "cause": TEXT, "jobs": COUNT, "example": _FOUND_JOB})),
    },
)
_NUMBER: Schema = {"type": "number"}
_DISTRIBUTION = or_null(
    shape(
        "Distribution",
        {
            "median": _NUMBER,
            "highest": _NUMBER,
            "bars": list_of(shape("Bar", {"from": _NUMBER, "to": _NUMBER, "jobs": COUNT})),
        },
    )
)
STATISTICS = shape("Statistics", {"seconds": _DISTRIBUTION, "scores": _DISTRIBUTION})
LISTED_RUNS = shape(
    "ListedRuns",
    {
        "grading_runs": list_of(
            shape("ListedRun", _RUN | {"counts": shape("JobCounts", {state.value: COUNT for state in JobState})})
        ),
        "next": or_null(ID),
    },
)
_COURSE_QUEUE = shape("CourseQueue", {"course": TEXT, "depth": COUNT, "oldest_queued_at": TIME, "stranded": _STRANDED})
QUEUES = shape("Queues", {"courses": list_of(_COURSE_QUEUE)})
