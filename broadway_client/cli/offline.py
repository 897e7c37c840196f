"""The only door from the command to the API's own code: its pure rules, to check a config without an API.

What is checked here is what the API checks, by the same schemas and rules, under the limits that an API has by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from broadway_api import environment
from broadway_api.domain import Job, JobType, Run, SecretRef
from broadway_api.errors import InvalidInput, NotJson
from broadway_api.intake import Intake
from broadway_api.policy import Policy
from broadway_client.cli.names import student_name
from broadway_client.errors import Fault, InvalidRequest


@dataclass(frozen=True, kw_only=True)
class StageEnvironment:
    """What one stage of one job gets; `env` has `<run id>`, `<job id>` and `<secret …>` for what comes later."""

    stage: int
    image: str
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job as it would be; `student` is None for pre- and post-processing."""

    type: str
    student: Mapping[str, object] | None
    stages: tuple[StageEnvironment, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a config would come to. Environments are worked out when they are asked for."""

    run: Run
    jobs: tuple[Job, ...]

    @property
    def students(self) -> int:
        """How many students would be graded."""
        return sum(1 for job in self.jobs if job.type is JobType.STUDENT)

    def stages(self, job_type: str) -> int:
        """How many stages a job of this type has."""
        return len(self.run.config.pipeline(JobType(job_type)) or ())

    def of(self, student: str) -> tuple[Job, ...]:
        """The jobs of a student, by the name that `student_name` gives it."""
        return tuple(job for job in self.jobs if job.student is not None and student_name(job.student) == student)

    def first(self) -> tuple[Job, ...]:
        """The first job of each type."""
        return tuple({job.type: job for job in reversed(self.jobs)}.values())[::-1]

    def planned(self, job: Job) -> PlannedJob:
        """One job with the environments of its stages."""
        reserved = {"GRADING_RUN_ID": "<run id>", "GRADING_JOB_ID": "<job id>"}
        stages = []
        for index, stage in enumerate(self.run.config.pipeline(job.type) or ()):
            merged = environment.merge(self.run.config.env, stage.env, job.student)
            secrets = {one.name: f"<secret {one.name}>" for one in merged.values() if isinstance(one, SecretRef)}
            env = environment.resolve(merged, reserved, secrets)
            stages.append(StageEnvironment(stage=index, image=stage.image, env=env))
        return PlannedJob(type=str(job.type), student=job.student, stages=tuple(stages))


def plan(text: str) -> Plan:
    """What the API would make of a config. Raises InvalidRequest, as the API's answer would be."""
    try:
        run, jobs = Intake(Policy()).plan(text.encode(), datetime.now(UTC))
    except NotJson as error:
        raise InvalidRequest(400, str(error), line=error.line, column=error.column) from None
    except InvalidInput as error:
        faults = [Fault(path=fault.path, message=fault.message) for fault in error.faults]
        raise InvalidRequest(400, str(error), faults=faults, more=error.more) from None
    return Plan(run=run, jobs=tuple(jobs))
