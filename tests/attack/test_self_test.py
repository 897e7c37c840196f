"""What a grader makes of a self-test: when it makes one, when it refuses to start, what it shows."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broadway_grader.attacks.assault import Outcome, Verdict
from broadway_grader.attacks.attack import Attack, Level
from broadway_grader.attacks.self_test import VALIDITY, StartTest
from broadway_grader.errors import SetupError
from tests.attack.assaults import assault_on
from tests.attack.mutations import words

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


class Scripted:
    """An assault whose attacks all come to one outcome."""

    def __init__(self, outcome: Outcome = Outcome.HELD) -> None:
        self.outcome = outcome
        self.carried_out = 0

    async def run(self, attack: Attack) -> Verdict:
        self.carried_out += 1
        details = [] if self.outcome is Outcome.HELD else ["mount: tmpfs mounted"]
        return Verdict(attack=attack.name, tries="", level=Level.MUST, outcome=self.outcome, details=details)


class Clock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def test(tmp_path: Path, clock: Clock) -> StartTest:
    return StartTest(
        mode="auto", record=tmp_path / "self_test", configuration=["1.0", {"runtime": "docker"}], now=clock
    )


async def made(test: StartTest, assault: Any) -> tuple[str, int]:
    """What is shown, and how many attacks that took."""
    before = assault.carried_out
    shown = await test.run(assault, "docker", slots=2)
    return shown, assault.carried_out - before


async def test_one_that_held_is_not_repeated_for_a_day(test: StartTest, clock: Clock) -> None:
    assault = Scripted()
    shown, attacks = await made(test, assault)
    assert shown == "held at 2026-01-31T09:30:00.000Z"
    assert attacks > 3
    clock.time += VALIDITY - timedelta(seconds=1)
    assert await made(test, assault) == (shown, 0)
    clock.time += timedelta(seconds=1)
    assert (await made(test, assault))[1] == attacks


@pytest.mark.parametrize(
    "change", [{"mode": "always"}, {"configuration": ["1.1", {"runtime": "docker"}]}, {"configuration": ["1.0", {}]}]
)
async def test_it_is_repeated_where_anything_has_changed(test: StartTest, change: dict[str, Any]) -> None:
    assault = Scripted()
    await made(test, assault)
    assert (await made(dataclasses.replace(test, **change), assault))[1] > 3


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"held_at": 7}', '{"held_at": "2026-01-31T09:30:00Z"}', "\udcff"])
async def test_a_record_that_says_nothing_is_no_proof(test: StartTest, content: str) -> None:
    test.record.write_text(content, errors="surrogateescape")
    assert (await made(test, Scripted()))[1] > 3


async def test_one_from_the_future_is_no_proof(test: StartTest, clock: Clock) -> None:
    await made(test, Scripted())
    clock.time -= timedelta(seconds=1)
    assert (await made(test, Scripted()))[1] > 3


@pytest.mark.parametrize("mode", ["auto", "always"])
async def test_a_must_hold_that_fails_keeps_the_grader_from_starting(test: StartTest, mode: str) -> None:
    with pytest.raises(SetupError) as refused:
        await dataclasses.replace(test, mode=mode).run(Scripted(Outcome.BROKEN), "docker", slots=2)  # type: ignore[arg-type]
    assert "self-test does not hold: mount: tmpfs mounted" in str(refused.value)
    assert "--self-test-at-start warn" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not test.record.exists()


async def test_with_warn_it_starts_and_the_list_of_workers_shows_it(test: StartTest) -> None:
    shown, _ = await made(dataclasses.replace(test, mode="warn"), Scripted(Outcome.BROKEN))
    assert shown == "does not hold: mount: tmpfs mounted"
    assert not test.record.exists()


async def test_with_never_there_is_none_and_the_list_of_workers_shows_it(test: StartTest) -> None:
    assert await made(dataclasses.replace(test, mode="never"), Scripted()) == ("never made", 0)


async def test_one_that_cannot_be_made_is_no_hole_unless_it_was_asked_for(test: StartTest) -> None:
    assault = Scripted(Outcome.UNTRIED)
    assert (await made(test, assault))[0].startswith("could not be made: ")
    with pytest.raises(SetupError, match="self-test could not be made"):
        await made(dataclasses.replace(test, mode="always"), assault)
    assert not test.record.exists()


async def test_the_quick_part_holds_on_a_real_machine(runtime: str, test: StartTest, tmp_path: Path) -> None:
    async with assault_on(runtime, tmp_path / "work") as assault:
        assert (await test.run(assault, runtime, slots=4)).startswith("held at")
    assert json.loads(test.record.read_bytes())["held_at"] == "2026-01-31T09:30:00.000Z"


async def test_the_quick_part_notices_a_real_hole(test: StartTest, tmp_path: Path) -> None:
    holes = words("--unshare-net")
    async with assault_on("sandbox", tmp_path / "work") as assault:
        with holes(), pytest.raises(SetupError, match="routes: "):
            await test.run(assault, "sandbox", slots=4)


async def command(*options: str) -> tuple[int | None, Sequence[str], str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "grader.py"), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    out, err = await asyncio.wait_for(process.communicate(), 200)
    return process.returncode, out.decode().splitlines(), err.decode()


async def test_the_command_prints_a_table_and_needs_no_api(tmp_path: Path) -> None:
    options = ["--self-test", "--runtime", "sandbox", "--slots", "4", "--work-dir", str(tmp_path)]
    status, lines, errors = await command(*options)
    assert status == 0, "\n".join([*lines, errors])
    assert len([line for line in lines if " held " in line]) > 30
    assert lines[-1].startswith("runtime sandbox, ")
    assert "must-hold: " in lines[-1]
    assert list((tmp_path / "jobs").iterdir()) == []


async def test_the_command_says_by_its_status_that_nothing_is_proven(tmp_path: Path) -> None:
    options = ["--self-test", "--runtime", "docker", "--slots", "4", "--work-dir", str(tmp_path)]
    options += ["--self-test-image", "no-such-image", "--self-test-python-image", "no-such-image"]
    status, lines, _ = await command(*options, "--image-pull-policy", "never")
    assert status == 1
    assert not any(" BROKEN " in line for line in lines)
    assert any("image no-such-image is not available" in line for line in lines)
