"""What all jobs of a type in a run share: everything but the values of a student's variables, and secrets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broadway_api import runconfig
from broadway_api.domain import JobType, RunConfig
from broadway_api.environment import StageEnvironment


class JobPlan:
    """Jobs of one type in one run, as far as they can be prepared; nothing in it may be changed."""

    def __init__(self, config: RunConfig, job_type: JobType) -> None:
        pipeline = config.pipeline(job_type)
        self.config = config
        #: The stages as workers get them, each with an `env` whose place a job's own takes.
        self.stages: tuple[Mapping[str, Any], ...] = tuple(
            runconfig.stage_to_json(stage, env={}, without=("require",)) for stage in pipeline
        )
        self.environments = tuple(StageEnvironment(config.env, stage.env) for stage in pipeline)
        #: By stage the variables that take secrets, and the names of all those secrets.
        self.secret_variables = tuple(stage.secrets.keys() for stage in pipeline)
        self.secret_names = frozenset(name for stage in pipeline for name in stage.secrets.values())
