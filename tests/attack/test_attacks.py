"""Every attack of the catalogue, a real stage in a real runtime, as `grader.py --self-test` carries them out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from broadway_grader.attacks import CATALOGUE
from broadway_grader.attacks.assault import Outcome
from broadway_grader.attacks.attack import Attack
from broadway_grader.attacks.job_directory import JOB_DIRECTORY
from broadway_grader.attacks.results import RESULTS
from broadway_grader.attacks.self_test import at_once, carry_out
from tests.attack.assaults import SLOTS, assault_on


async def test_every_attack_is_held_off(runtime: str, tmp_path: Path) -> None:
    await held_off(CATALOGUE, runtime, tmp_path)


async def test_attacks_on_job_are_held_off_where_it_is_only_watched(tmp_path: Path) -> None:
    await held_off([*JOB_DIRECTORY, *RESULTS], "docker", tmp_path, job_bound="watch")


async def held_off(catalogue: Iterable[Attack], runtime: str, directory: Path, **options: object) -> None:
    attacks = [attack for attack in catalogue if attack.applies_to(runtime, SLOTS)]
    async with assault_on(runtime, directory, **options) as assault:
        verdicts = await carry_out(assault, attacks, turns=at_once(SLOTS))
    not_held = {verdict.attack: verdict for verdict in verdicts if verdict.outcome is not Outcome.HELD}
    told = [f"{name} {verdict.outcome}: {verdict.details}" for name, verdict in not_held.items()]
    assert not told, "\n".join(told)


def test_attacks_are_known_by_their_names() -> None:
    names = [attack.name for attack in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and " " not in name and len(name) <= 24 for name in names)
