"""What workers have and jobs need: labels, and requirements made of them. Pure.

A worker has labels, each a name with a value, which may be empty: `gpu`, `arch=arm64`. A job requires some:
`arch=arm64` is the label with that very value, `gpu` the label with any.

A requirement is those that a job's stages and its run ask for, sorted, with commas between them; the empty one asks
for nothing. Jobs that ask for the same have the same text, so a queue has few of them, and what a worker may be given
is a short list of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from broadway_api.domain import JobType, RunConfig

#: Asks for nothing: every worker will do.
NOTHING = ""


def requirement_of(config: RunConfig, job_type: JobType) -> str:
    """What a worker must have to run jobs of that type: all that the run and the stages ask for."""
    return requirement([*config.require, *(label for stage in config.pipeline(job_type) for label in stage.require)])


def requirement(labels: Iterable[str]) -> str:
    """The text for such labels."""
    return ",".join(sorted(set(labels)))


def labels_in(required: str) -> list[str]:
    """The inverse of `requirement`."""
    return required.split(",") if required else []


def fits(labels: Mapping[str, str], required: str) -> bool:
    """Whether a worker with those labels may be given jobs that require that."""
    return all(_has(labels, label) for label in labels_in(required))


def shortage(required: str, fleet: Sequence[Mapping[str, str]]) -> str | None:
    """Why nobody can run such jobs, for people, given the labels of each worker that is there; None if somebody can."""
    if any(fits(labels, required) for labels in fleet):
        return None
    if not fleet:
        return "no worker is connected"
    *others, last = labels_in(required)
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"0 of {len(fleet)} workers have {listed}"


def _has(labels: Mapping[str, str], label: str) -> bool:
    name, has_value, value = label.partition("=")
    return name in labels and (not has_value or labels[name] == value)
