"""Many quiet attacks in one container: what a grader tries before it takes its first job, in a few seconds."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence

from broadway_grader.attacks.attack import Attack, Evidence, Level, Untried, in_vain, sh

_HEADING = "=== attack "


def for_start(attacks: Iterable[Attack], runtime: str) -> list[Attack]:
    """What to try before the first job: the must-holds that need nothing but a shell, as few containers as possible."""
    chosen = [
        attack
        for attack in attacks
        if attack.at_start and attack.applies_to(runtime, slots=1) and attack.level is Level.MUST
    ]
    quiet = [attack for attack in chosen if attack.check is in_vain]
    return [*_volleys(quiet), *(attack for attack in chosen if attack not in quiet)]


def _volleys(attacks: Sequence[Attack]) -> Iterator[Attack]:
    """Quiet attacks put together: one volley for each user that they are carried out as."""
    by_user: dict[str | None, dict[str, str]] = {}
    for attack in attacks:
        for stage in attack.stages:
            assert stage.entry_point, "the script"  # noqa: S101 - a mistake in the catalogue
            by_user.setdefault(stage.user, {})[attack.name] = stage.entry_point[-1]
    for user, scripts in by_user.items():
        script = "\n".join(f"echo '{_HEADING}{name}'\n(\n{text}\n)" for name, text in scripts.items())
        yield Attack(
            name=f"volley of user {user or 'any'}",
            tries=f"{len(scripts)} things: {', '.join(scripts)}",
            stages=[sh(script, user=user)],
            check=functools.partial(_judge, names=list(scripts)),
        )


def _judge(evidence: Evidence, *, names: Sequence[str]) -> Iterator[str]:
    sections = _sections(evidence.lines)
    breaches = [
        f"{name}: {line.removeprefix('breach:').strip()}"
        for name, lines in sections.items()
        for line in lines
        if line.startswith("breach:")
    ]
    yield from breaches
    if not breaches and (missing := [name for name in names if "tried" not in sections.get(name, ())]):
        raise Untried(f"not tried to the end: {', '.join(missing)}")


def _sections(lines: Iterable[str]) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if line.startswith(_HEADING):
            current = sections.setdefault(line.removeprefix(_HEADING), [])
        else:
            current.append(line)
    return sections
