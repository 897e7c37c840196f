"""States as this protocol spells them."""

from __future__ import annotations

from collections.abc import Mapping

from broadway_api.domain import JobState, RunState

RUN: Mapping[RunState, str] = {
    RunState.READY: "ready to be started",
    RunState.PRE_PROCESSING: "pre processing job has been scheduled",
    RunState.STUDENTS: "students grading jobs have been scheduled",
    RunState.POST_PROCESSING: "post processing job has been scheduled",
    RunState.FINISHED: "grading run is complete",
    RunState.FAILED: "grading run failed",
    RunState.CANCELLED: "grading run failed",
}

JOB: Mapping[JobState, str] = {
    JobState.WAITING: "grading job has been scheduled",
    JobState.QUEUED: "grading job has been scheduled",
    JobState.RUNNING: "grading job is running",
    JobState.SUCCEEDED: "grading job was successful",
    JobState.FAILED: "grading job failed",
    JobState.CANCELLED: "grading job failed",
}

#: The states that a stream of events tells.
STREAM: Mapping[JobState, str] = {
    JobState.WAITING: "QUEUED",
    JobState.QUEUED: "QUEUED",
    JobState.RUNNING: "STARTED",
    JobState.SUCCEEDED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "FAILED",
}
