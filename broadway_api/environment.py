"""The environment of a stage: merged from run, stage and student, with `$NAME` templates resolved. Pure.

Precedence, lowest first: the run's `env`, the stage's `env`, the student's entry; an empty value of a stage hides
nothing. A stage's value may be a secret's, which is put in last. `GRADING_RUN_ID` and `GRADING_JOB_ID` stand on top. A
value `$NAME` takes NAME's value, `$$…` is a literal `$…`. Templates are checked when a run is created, so that
resolving them later cannot fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice

from broadway_api.domain import Env, JobType, Pipeline, RunConfig, SecretRef, StageEnv
from broadway_api.errors import Fault

#: What a shell calls a name (POSIX, section 8.1, with lower case).
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: Set by Broadway in every stage; nobody can override them.
RESERVED = ("GRADING_RUN_ID", "GRADING_JOB_ID")

#: Links of a circle that its message shows.
MAX_SHOWN = 10

#: Variables that are looked at to check one run: about a second's work. Rosters whose entries have few different sets
#: of names, as all real ones do, need a thousandth of it.
CHECK_BUDGET = 500_000


class UnresolvedTemplate(ValueError):
    """A `$NAME` that leads nowhere or in a circle; `variable` is the one that holds it."""

    def __init__(self, variable: str, problem: str) -> None:
        self.variable = variable
        self.problem = problem
        super().__init__(f"{variable}: {problem}")


def as_text(value: str | float | bool) -> str:
    """An env value as a string: numbers and booleans as JSON writes them."""
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else json.dumps(value)  # which a boolean is not


def merge(run: Env, stage: StageEnv, student: Env | None) -> dict[str, str | SecretRef]:
    """The three levels as one, templates and secrets unresolved.

    Always a new dictionary: no student sees another's values.
    """
    merged: dict[str, str | SecretRef] = {name: as_text(value) for name, value in run.items()}
    student = student or {}
    for name, value in stage.items():
        if value != "" or not (name in merged or name in student):
            merged[name] = value if isinstance(value, SecretRef) else as_text(value)
    for name, value in student.items():
        merged[name] = as_text(value)
    return merged


def resolve(
    merged: Mapping[str, str | SecretRef], reserved: Mapping[str, str], secrets: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment as the container gets it; `secrets` by their names. Raises UnresolvedTemplate, KeyError."""
    variables = {**merged, **{name: escape(value) for name, value in reserved.items()}}
    # Known beforehand: a secret is never taken for a template, whatever its value begins with; and what is none.
    known = {
        name: (secrets or {})[value.name] if isinstance(value, SecretRef) else value
        for name, value in variables.items()
        if isinstance(value, SecretRef) or not value.startswith("$")
    }
    if len(known) == len(variables):
        return known
    return {name: known[name] if name in known else _resolve_one(name, variables, known) for name in variables}


class StageEnvironment:
    """The environment of one stage, with what its run's jobs share worked out beforehand.

    What `of` returns is what `merge` and `resolve` make, in the same order and in a fifth of the time. Nothing is kept
    of what a student or a secret brings along.
    """

    def __init__(self, run: Env, stage: StageEnv) -> None:
        self._run = run
        self._stage = stage
        shared = merge(run, stage, None)
        texts = {name: value for name, value in shared.items() if isinstance(value, str)}
        # What is left to the students' entries stands where those have it.
        self._left_open = frozenset(name for name, value in stage.items() if value == "" and name not in run)
        self._texts = {name: text.removeprefix("$") for name, text in texts.items() if name not in self._left_open}
        self._templates = {name: text[1:] for name, text in texts.items() if is_template(text)}
        chained = not self._templates.keys().isdisjoint(self._templates.values())
        self._takes_a_closer_look = chained or len(texts) < len(shared)  # which secrets do, too

    def of(
        self, student: Env | None, reserved: Mapping[str, str], secrets: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The environment as the container gets it; `secrets` by their names. Raises UnresolvedTemplate, KeyError."""
        return self._at_once(student or {}, reserved) or resolve(
            merge(self._run, self._stage, student), reserved, secrets
        )

    def _at_once(self, student: Env, reserved: Mapping[str, str]) -> dict[str, str] | None:
        """The environment, if no template takes another one or a secret, or leads nowhere."""
        if self._takes_a_closer_look or not self._left_open <= student.keys():
            return None
        given = {name: as_text(value) for name, value in student.items()}
        for text in given.values():
            if text.startswith("$"):
                return None
        env = {**self._texts, **given, **reserved}
        for name, target in self._templates.items():
            if name not in given and name not in reserved:
                if target not in env:
                    return None
                env[name] = env[target]
        return env


def is_template(value: str) -> bool:
    """Whether a value stands for another variable's."""
    return value.startswith("$") and not value.startswith("$$")


def too_varied() -> Fault:
    """What is told of a run that would take too long to check."""
    return Fault(
        path="$.students",
        message="too many different sets of names and templates to check them all: give the entries the same names,"
        " or put fewer variables and templates into `env`",
    )


def escape(value: str) -> str:
    """A literal as a template."""
    return "$" + value if value.startswith("$") else value


def _resolve_one(name: str, variables: Mapping[str, str | SecretRef], known: dict[str, str]) -> str:
    """One variable's value; `known` has those resolved before, and gets these, so that a chain is walked only once."""
    chain = {name: None}  # a dictionary for its order and its quick lookup
    at = name
    while at not in known:
        value = variables[at]
        assert isinstance(value, str), "secrets are known"  # noqa: S101 - a mistake of ours, never of a config
        if not is_template(value):
            known[at] = value.removeprefix("$")
            break
        target = value[1:]
        if not NAME.fullmatch(target):
            raise UnresolvedTemplate(
                name, f"{_shown(value)} is no $NAME; write $$ for a value that begins with a dollar sign"
            )
        if target in chain:
            circle = " → ".join([*islice(chain, MAX_SHOWN), *(["…"] if len(chain) > MAX_SHOWN else []), target])
            raise UnresolvedTemplate(name, f"${target} leads in a circle: {circle}")
        if target not in variables:
            raise UnresolvedTemplate(name, f"${target} names no variable; write $${target} for the literal text")
        if isinstance(variables[target], SecretRef):
            # A roster may have text of students in it, which must not reach out for what staff keep from them.
            raise UnresolvedTemplate(name, f"${target} is a secret, which no template may take; name the secret itself")
        chain[target] = None
        at = target
    known.update(dict.fromkeys(chain, known[at]))
    return known[at]


def _shown(value: str) -> str:
    return value if len(value) <= 40 else value[:40] + "…"


def template_faults(config: RunConfig, roster: list[Env]) -> Iterator[Fault]:
    """What is wrong with the templates of a run, each at the place where the offending value was written.

    What can be wrong depends only on the names of a student's variables and on its templates; students alike in both
    are checked once, so a roster of 10,000 costs about as much as one of one.
    """
    reported: set[Fault] = set()
    for job_type in JobType:
        pipeline = config.pipeline(job_type)
        if job_type is not JobType.STUDENT:
            found = _pipeline_faults(config, pipeline, job_type, None, "")
        else:
            found = _student_faults(config, pipeline, roster)
        for fault in found:
            if fault not in reported:
                reported.add(fault)
                yield fault


def _student_faults(config: RunConfig, pipeline: Pipeline, roster: list[Env]) -> Iterator[Fault]:
    checked: set[tuple[frozenset[str], frozenset[tuple[str, str]]]] = set()
    spent = 0
    for index, student in enumerate(roster):
        templates = frozenset((k, v) for k, v in student.items() if isinstance(v, str) and is_template(v))
        alike = (frozenset(student), templates)
        if alike in checked:
            continue
        checked.add(alike)
        spent += sum(len(config.env) + len(stage.env) + len(student) for stage in pipeline)
        if spent > CHECK_BUDGET and len(checked) > 1:
            yield too_varied()
            return
        yield from _pipeline_faults(config, pipeline, JobType.STUDENT, student, f"$.students[{index}]")


def _pipeline_faults(
    config: RunConfig, pipeline: Pipeline, job_type: JobType, student: Env | None, student_path: str
) -> Iterator[Fault]:
    for index, stage in enumerate(pipeline):
        variables = {**merge(config.env, stage.env, student), **dict.fromkeys(RESERVED, "")}
        known = {name: "" for name, value in variables.items() if isinstance(value, SecretRef)}
        for name in variables:
            try:
                _resolve_one(name, variables, known)
            except UnresolvedTemplate as error:
                stage_path = f"$.{job_type}_pipeline[{index}]"
                if student and name in student:
                    path = f"{student_path}.{name}"
                elif stage.env.get(name, "") != "":
                    path = f"{stage_path}.env.{name}"
                else:
                    path = f"$.env.{name}"
                where = "" if path.startswith(stage_path) else f" (in {stage_path[2:]})"
                yield Fault(path=path, message=error.problem + where)
