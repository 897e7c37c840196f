"""From a course's configuration of an assignment to a run config of ours. Pure.

In this protocol a dollar sign means nothing, and an empty value hides what it stands over. So every value that begins
with `$` is escaped, and the environments of assignment, stage and run are laid over one another here, before ours,
which would do it by another rule, has anything to merge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from broadway_api import environment
from broadway_api.course_protocol.shapes import STAGE_FIELDS
from broadway_api.errors import Fault, InvalidInput

_PIPELINES = ("pre_processing_pipeline", "student_pipeline", "post_processing_pipeline")

Json = dict[str, Any]


def run_config(config: Mapping[str, Any], run: Mapping[str, Any]) -> Json:
    """A run config with its students, of a configuration and a run that have passed their schemas.

    Raises InvalidInput where the run has an environment for a pipeline that the configuration lacks.
    """
    data: Json = {"students": [_escaped(entry) for entry in run["students_env"]]}
    for name in _PIPELINES:
        own = run.get(name.replace("pipeline", "env"))
        if config.get(name):
            data[name] = [_stage(stage, config.get("env") or {}, own or {}) for stage in config[name]]
        elif own is not None:
            path = "$." + name.replace("pipeline", "env")
            raise InvalidInput([Fault(path=path, message=f"this assignment's configuration has no {name}")])
    return data


def _stage(stage: Mapping[str, Any], assignment: Mapping[str, Any], run: Mapping[str, Any]) -> Json:
    env = _escaped({**assignment, **stage.get("env", {}), **run})
    return {STAGE_FIELDS[name]: value for name, value in stage.items()} | {"env": env}


def _escaped(env: Mapping[str, Any]) -> Json:
    return {name: environment.escape(value) if isinstance(value, str) else value for name, value in env.items()}


def in_their_words(error: InvalidInput) -> InvalidInput:
    """Faults of the run config that `run_config` made, at the places that the course knows."""
    faults = [Fault(path=_their_path(fault.path), message=fault.message) for fault in error.faults]
    return InvalidInput(faults, what="the grading run with its assignment's configuration", more=error.more)


def _their_path(path: str) -> str:
    path = re.sub(r"^\$\.students\b", "$.students_env", path)
    for theirs, ours in STAGE_FIELDS.items():
        path = re.sub(rf"(_pipeline\[\d+\]\.){ours}\b", rf"\g<1>{theirs}", path)
    return path
