"""How the campaign's stages end: laid down in a job's environment, so that every attempt must end the same way."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any, Self

#: Does in a container what `FakeRuntime` does without: `OUTCOME` is "<exit code>:<seconds>,…", one for each stage.
SCRIPT = 'o=$(echo "$OUTCOME" | cut -d, -f"$STAGE"); sleep "${o#*:}"; exit "${o%%:*}"'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one stage ends, and after how long."""

    exit_code: int
    seconds: float

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """What the environment of a stage says of it."""
        return cls.parse(env["OUTCOME"])[int(env["STAGE"]) - 1]

    @classmethod
    def parse(cls, text: str) -> list[Self]:
        """The outcomes of all stages of a job."""
        pairs = (part.split(":") for part in text.split(","))
        return [cls(exit_code=int(code), seconds=float(seconds)) for code, seconds in pairs]


def pipeline(stages: int, **env: str) -> list[dict[str, Any]]:
    """The stages of a run config; `env` is common to them."""
    return [
        {
            "image": "broadway-busybox:latest",
            "entry_point": ["sh", "-c", SCRIPT],
            "env": {"STAGE": number + 1, **env},
        }
        for number in range(stages)
    ]


def draw(chance: random.Random, stages: int, *, failing: float) -> str:
    """Outcomes of a job of which one stage fails with probability `failing`; most are short, some take two seconds."""
    fails_at = chance.randrange(stages) if chance.random() < failing else None
    parts = []
    for number in range(stages):
        seconds = chance.uniform(1.0, 2.0) if chance.random() < 0.15 else chance.uniform(0.005, 0.4)
        parts.append(f"{1 if number == fails_at else 0}:{seconds:.3f}")
    return ",".join(parts)


def expected_codes(outcomes: str) -> Sequence[int]:
    """The exit codes of the stages that run: all, or those up to the first that fails."""
    codes: list[int] = []
    for outcome in Outcome.parse(outcomes):
        codes.append(outcome.exit_code)
        if outcome.exit_code:
            break
    return codes
