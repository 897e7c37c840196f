"""The routes of `handlers/views.py`."""

from __future__ import annotations

from broadway_api.domain import JobSort, JobState, Reason, RunState
from broadway_api.openapi import answers
from broadway_api.openapi.model import Answer, Context, Operation, Parameter, Paths
from broadway_api.schemas import ID

_NO_RUN = {404: "no run has this id"}

_RUN_FILTERS = (
    Parameter(name="state", description="only these", schema=answers.words("RunState", RunState)),
    Parameter(name="course", description="only this course's", schema={"type": "string"}),
    Parameter(name="limit", description="how many at a time", schema={"type": "integer", "minimum": 1, "maximum": 100}),
    Parameter(name="after", description="`next` of the page before", schema=ID),
)

_JOB_FILTERS = (
    Parameter(
        name="search",
        description="stands somewhere in the roster entry, in whatever case, or is the job's id",
        schema={"type": "string", "maxLength": 200},
    ),
    Parameter(
        name="states",
        description="only these",
        schema={"type": "array", "items": answers.words("JobState", JobState)},
    ),
    Parameter(name="reason", description="only these", schema=answers.words("Reason", Reason)),
    Parameter(name="cause", description="only these, as `failures` has them", schema={"type": "string"}),
    Parameter(name="sort", description="what has none of it comes last", schema=answers.words("JobSort", JobSort)),
    Parameter(name="order", description="of the sort", schema={"enum": ["ascending", "descending"]}),
    Parameter(name="limit", description="how many at a time", schema={"type": "integer", "minimum": 1, "maximum": 200}),
    Parameter(name="offset", description="how many before", schema={"type": "integer", "minimum": 0, "maximum": 2**31}),
)

_LISTS = {
    "runs": ("Runs", "the newest runs, with their jobs counted", answers.LISTED_RUNS, _RUN_FILTERS),
    "queue": ("Queue", "what the courses have in the queue", answers.QUEUES, ()),
    "workers": ("Workers", "the workers, as `listWorkers`", answers.WORKER_LIST, ()),
}


def paths(_: Context) -> Paths:
    """What people ask who look at the cluster."""
    of_a_run = "/api/v1/grading_run/{grading_run_id}"
    described: dict[str, dict[str, Operation]] = {
        f"{of_a_run}/failures": {
            "get": Operation(
                id="getFailures",
                summary="Why jobs of a run failed: its failures by reason and cause",
                answers={200: Answer(description="the most frequent first", data=answers.FAILURES)},
                refusals=_NO_RUN,
            )
        },
        f"{of_a_run}/statistics": {
            "get": Operation(
                id="getStatistics",
                summary="How the durations and scores of a run spread",
                answers={200: Answer(description="histograms", data=answers.STATISTICS)},
                refusals=_NO_RUN,
            )
        },
        f"{of_a_run}/jobs": {
            "get": Operation(
                id="findJobs",
                summary="Search and sort the jobs of a run",
                parameters=_JOB_FILTERS,
                answers={200: Answer(description="a page", data=answers.FOUND_JOBS)},
                refusals=_NO_RUN,
            )
        },
    }
    for name, (word, summary, data, parameters) in _LISTS.items():
        described[f"/api/v1/overview/{name}"] = {
            "get": Operation(
                id=f"view{word}",
                summary=f"Look at {summary}",
                parameters=parameters,
                answers={200: Answer(description="as it is now", data=data)},
            )
        }
        described[f"/api/v1/overview/{name}/events"] = {
            "get": Operation(
                id=f"watch{word}",
                summary=f"Follow {summary}",
                description=f"Server-sent events: `event: {name}` with the data of `view{word}` after each change.",
                parameters=parameters,
                answers={200: Answer(description="events, without an end", media_type="text/event-stream")},
            )
        }
    return described
