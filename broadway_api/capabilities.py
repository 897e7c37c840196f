"""What workers have and jobs need: labels, and requirements made of them. Pure.

A worker has labels, each a name with a value, which may be empty: `gpu`, `arch=arm64`. A job requires some:
`arch=arm64` is the label with that very value, `gpu` the label with any.

A requirement is those that a job's stages and its run ask for, sorted, with commas between them; the empty one asks
for nothing. Jobs that ask for the same have the same text, so a queue has few of them, and what a worker may be given
is a short list of texts.

`!protocol=course` asks for a worker without that label, which is on every grader of the course protocol: such a one
ignores the fields of a stage that it does not know, a limit or another user among them. Jobs that have such fields are
kept from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from broadway_api.domain import JobType, RunConfig, Stage

#: Asks for nothing: every worker will do.
NOTHING = ""

#: The label of graders of the course protocol, and the fields of a stage that those know.
COURSE_PROTOCOL = {"protocol": "course"}
COURSE_PROTOCOL_FIELDS = frozenset(
    {"image", "env", "entry_point", "enable_networking", "privileged", "host_name", "timeout", "memory", "logs"}
    | {"cpuset_cpus", "require"}
)

_NOT_COURSE_PROTOCOL = "!protocol=course"
_PLAIN = Stage(image="")


def requirement_of(config: RunConfig, job_type: JobType) -> str:
    """What a worker must have to run jobs of that type: all that the run and the stages ask for."""
    stages = config.pipeline(job_type)
    labels = [*config.require, *(label for stage in stages for label in stage.require)]
    return requirement(labels if all(map(_is_simple, stages)) else [*labels, _NOT_COURSE_PROTOCOL])


def _is_simple(stage: Stage) -> bool:
    """Whether graders of the course protocol know all that the stage asks for."""
    others = Stage.__dataclass_fields__.keys() - COURSE_PROTOCOL_FIELDS
    return not stage.secrets and all(getattr(stage, name) == getattr(_PLAIN, name) for name in others)


def requirement(labels: Iterable[str]) -> str:
    """The text for such labels."""
    return ",".join(sorted(set(labels)))


def labels_in(required: str) -> list[str]:
    """The inverse of `requirement`."""
    return required.split(",") if required else []


def asked_in(required: str) -> list[str]:
    """Of those labels the ones that the course asked for."""
    return [label for label in labels_in(required) if not label.startswith("!")]


def fits(labels: Mapping[str, str], required: str) -> bool:
    """Whether a worker with those labels may be given jobs that require that."""
    return all(_has(labels, label) for label in labels_in(required))


def shortage(required: str, fleet: Sequence[Mapping[str, str]]) -> str | None:
    """Why nobody can run such jobs, for people, given the labels of each worker that is there; None if somebody can."""
    if any(fits(labels, required) for labels in fleet):
        return None
    if not fleet:
        return "no worker is connected"
    asked = asked_in(required)
    # What the course did not ask for is named only where it is what is missing.
    if any(fits(labels, requirement(asked)) for labels in fleet):
        having = f" of those that have {_listed(asked)}" if asked else f" of {len(fleet)} workers"
        return f"0{having} know all fields of its stages: they are graders of the course protocol"
    return f"0 of {len(fleet)} workers have {_listed(asked)}"


def _listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _has(labels: Mapping[str, str], label: str) -> bool:
    if label.startswith("!"):
        return not _has(labels, label[1:])
    name, has_value, value = label.partition("=")
    return name in labels and (not has_value or labels[name] == value)
