"""What a run config may ask for beyond its shape: the operator's limits that no schema can say. Pure.

Each fault names the limit and the option that sets it. Sizes are what Linux counts: bytes of UTF-8, with the `=` and
the zero byte of each variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from broadway_api import environment
from broadway_api.domain import Env, JobType, RunConfig, SecretRef, Stage, StageEnv
from broadway_api.environment import CHECK_BUDGET, as_text
from broadway_api.errors import Fault
from broadway_api.policy import Policy

#: Bytes of an entry point's words. Linux passes 128 KiB in one of them, and 2 MiB with the environment in all.
MAX_COMMAND_BYTES = 131_072

#: Secrets that a stage may name: 256 KiB, all of the longest.
MAX_STAGE_SECRETS = 16

#: Of `GRADING_RUN_ID` and `GRADING_JOB_ID` with their values.
_RESERVED_BYTES = 128

_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


def stage_faults(config: RunConfig, policy: Policy) -> Iterator[Fault]:
    """What single stages ask for and may not have."""
    for job_type in JobType:
        for index, stage in enumerate(config.pipeline(job_type)):
            at = f"$.{job_type}_pipeline[{index}]"
            for field, check in _CHECKS.items():
                if problem := check(stage, policy):
                    yield Fault(path=f"{at}.{field}", message=problem)


def _image_problem(stage: Stage, policy: Policy) -> str | None:
    if any(fnmatchcase(stage.image, pattern) for pattern in policy.allowed_images):
        return None
    shown = ", ".join(policy.allowed_images[:5]) + (", …" if len(policy.allowed_images) > 5 else "")
    return f"the operator's --allowed-images are {shown}"


def _memory_problem(stage: Stage, policy: Policy) -> str | None:
    if policy.max_stage_memory is None or stage.memory is None or _bytes(stage.memory) <= policy.max_stage_memory:
        return None
    return f"more than the {policy.max_stage_memory} bytes that the operator's --max-stage-memory allows"


def _user_problem(stage: Stage, policy: Policy) -> str | None:
    name = (stage.user or "").partition(":")[0]
    if policy.allow_root or not (name == "root" or (name.isdecimal() and int(name) == 0)):
        return None
    return "the operator's --no-allow-root forbids it"


def _command_problem(stage: Stage, policy: Policy) -> str | None:
    if sum(len(word.encode()) + 1 for word in stage.entry_point or ()) <= MAX_COMMAND_BYTES:
        return None
    return f"more than the {MAX_COMMAND_BYTES} bytes that can be passed to a program; put a file into /job or the image"


def _secrets_problem(stage: Stage, policy: Policy) -> str | None:
    if len(stage.secrets) <= MAX_STAGE_SECRETS:
        return None
    return f"{len(stage.secrets)} secrets; a stage may name {MAX_STAGE_SECRETS}"


_CHECKS: Mapping[str, Callable[[Stage, Policy], str | None]] = {
    "image": _image_problem,
    "memory": _memory_problem,
    "user": _user_problem,
    "entry_point": _command_problem,
    "env": _secrets_problem,
}


def _bytes(memory: int | str) -> int:
    """A size that has passed the schema."""
    text = str(memory).lower().removesuffix("b")
    return int(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else int(text)


# --- environments ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weight:
    """What bounds the size of an environment from above, without resolving it."""

    size: int = 0  # bytes of all names and values
    templates: int = 0
    longest: int = 0  # bytes of the largest value, which each template may stand for

    @classmethod
    def of(cls, env: StageEnv) -> _Weight:
        """Secrets count nothing: they have a bound of their own."""
        values = [as_text(value) for value in env.values() if not isinstance(value, SecretRef)]
        sizes = [len(value.encode()) for value in values]
        return cls(
            size=sum(len(name) for name in env) + sum(sizes) + 2 * len(env),
            templates=sum(map(environment.is_template, values)),
            longest=max(sizes, default=0),
        )

    @property
    def most(self) -> int:
        """Bytes that it cannot exceed, however its templates resolve."""
        return self.size + self.templates * self.longest

    def __add__(self, other: _Weight) -> _Weight:
        return _Weight(
            size=self.size + other.size,
            templates=self.templates + other.templates,
            longest=max(self.longest, other.longest),
        )


def size_faults(config: RunConfig, roster: Sequence[Env], policy: Policy) -> Iterator[Fault]:
    """Environments that are too large to be passed to a program; the templates have been checked before.

    Only where a bound from above says that one may be too large it is resolved and measured.
    """
    limit = policy.max_env_bytes
    run, students = _Weight.of(config.env), [_Weight.of(entry) for entry in roster]
    heaviest = _Weight(
        size=max((weight.size for weight in students), default=0),
        templates=max((weight.templates for weight in students), default=0),
        longest=max((weight.longest for weight in students), default=0),
    )
    spent = 0
    for job_type in JobType:
        of_students = job_type is JobType.STUDENT
        for index, stage in enumerate(config.pipeline(job_type)):
            base = run + _Weight.of(stage.env) + _Weight(size=_RESERVED_BYTES)
            if (base + heaviest if of_students else base).most <= limit:
                continue
            entries = [(entry, base + own) for entry, own in zip(roster, students, strict=True)]
            suspects: list[tuple[int, Env | None]] = (
                [(number, entry) for number, (entry, weight) in enumerate(entries) if weight.most > limit]
                if of_students
                else [(0, None)]
            )
            for number, entry in suspects:
                spent += len(config.env) + len(stage.env) + len(entry or ())
                if spent > CHECK_BUDGET:
                    yield environment.too_varied()
                    return
                size = _resolved_size(config, stage, entry)
                if size > limit:
                    at = f"$.{job_type}_pipeline[{index}].env"
                    where = f" with $.students[{number}]" if of_students else ""
                    yield Fault(
                        path=at,
                        message=f"the environment of this stage{where} has {size} bytes, templates resolved; the"
                        f" operator's --max-env-bytes allows {limit}. Put large data into /job or the image",
                    )
                    break  # the others would say the same


def _resolved_size(config: RunConfig, stage: Stage, student: Env | None) -> int:
    nothing = dict.fromkeys(stage.secrets.values(), "")
    resolved = environment.resolve(environment.merge(config.env, stage.env, student), {}, nothing)
    return sum(len(name) + len(value.encode()) + 2 for name, value in resolved.items()) + _RESERVED_BYTES
