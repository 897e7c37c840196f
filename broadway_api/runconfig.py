"""Run configs between JSON and domain: one shape for the wire and for the stores. Pure.

What comes in here has passed the schema (`schemas.py`) or was written by `to_json` before; nothing is checked again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from broadway_api.domain import Pipeline, RunConfig, SecretRef, Stage, StageEnv

#: Fields of a stage that are said even where the config left them to their defaults.
_ALWAYS_SAID = ("image", "env", "enable_networking", "timeout")

#: Fields that a schema also takes as 64.0, which engines would not.
_INTEGERS = {"memory", "pids"}

_LISTS = {"entry_point", "require"}

_STAGE_DEFAULTS = {name: getattr(Stage(image=""), name) for name in Stage.__dataclass_fields__}


def stage_from_json(data: Mapping[str, Any]) -> Stage:
    """A stage as the config or `stage_to_json` writes it."""
    fields = dict(data)
    for name in _LISTS & fields.keys():
        if fields[name] is not None:
            fields[name] = tuple(fields[name])
    for name in _INTEGERS & fields.keys():
        if isinstance(fields[name], float):
            fields[name] = int(fields[name])
    fields["env"] = {
        name: SecretRef(value["secret"]) if isinstance(value, dict) else value
        for name, value in (fields.get("env") or {}).items()
    }
    return Stage(**fields)


def stage_to_json(stage: Stage, *, env: StageEnv | None = None, without: Collection[str] = ()) -> dict[str, Any]:
    """The stage with its four basic fields and all others that the config has; `env` stands in for its own."""
    data: dict[str, Any] = {}
    for name, default in _STAGE_DEFAULTS.items():
        value = getattr(stage, name)
        if (name in _ALWAYS_SAID or value != default) and name not in without:
            data[name] = list(value) if isinstance(value, tuple) else value
    data["env"] = {
        name: {"secret": value.name} if isinstance(value, SecretRef) else value
        for name, value in (stage.env if env is None else env).items()
    }
    return data


def from_json(data: Mapping[str, Any]) -> RunConfig:
    """A run config; its `students`, if it has any, are left out."""
    return RunConfig(
        student_pipeline=_pipeline(data["student_pipeline"]) or (),
        pre_processing_pipeline=_pipeline(data.get("pre_processing_pipeline")),
        post_processing_pipeline=_pipeline(data.get("post_processing_pipeline")),
        env=dict(data.get("env") or {}),
        require=tuple(data.get("require", ())),
    )


def to_json(config: RunConfig) -> dict[str, Any]:
    """The inverse of `from_json`."""
    data: dict[str, Any] = {"env": dict(config.env)}
    if config.require:
        data["require"] = list(config.require)
    for name in ("student_pipeline", "pre_processing_pipeline", "post_processing_pipeline"):
        pipeline: Pipeline | None = getattr(config, name)
        if pipeline is not None:
            data[name] = [stage_to_json(stage) for stage in pipeline]
    return data


def _pipeline(stages: list[Mapping[str, Any]] | None) -> Pipeline | None:
    return None if stages is None else tuple(stage_from_json(stage) for stage in stages)
