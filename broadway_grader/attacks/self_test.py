"""The self-test: the whole catalogue against this machine on request, and its quick part before the first job."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broadway_grader.attacks import CATALOGUE
from broadway_grader.attacks.assault import Assault, Outcome, Verdict
from broadway_grader.attacks.attack import Attack, Level
from broadway_grader.attacks.volley import for_start
from broadway_grader.clock import utc_now
from broadway_grader.domain import wire_time
from broadway_grader.durable import write_durably
from broadway_grader.errors import SetupError

log = logging.getLogger(__name__)

#: How long a self-test that held says something about the same machine and the same configuration.
VALIDITY = timedelta(days=1)
#: Attacks at once, at most: more would measure the machine.
MOST_AT_ONCE = 4
#: Seconds that it may take before the first job; images are pulled within them.
PATIENCE = 90.0
#: Characters of what the list of workers shows (the API's limit of a label).
MOST_SHOWN = 255
ADVICE = "--self-test tells more; --self-test-at-start warn starts all the same, and the list of workers shows it"


async def carry_out(
    assault: Assault, attacks: Iterable[Attack], *, turns: int, tell: Callable[[Verdict], None] = lambda _: None
) -> list[Verdict]:
    """Carry out attacks, so many at once; the verdicts in the order of the attacks, each told as it comes."""
    turn = asyncio.Semaphore(turns)

    async def take_turn(attack: Attack) -> Verdict:
        async with turn:
            verdict = await assault.run(attack)
        tell(verdict)
        return verdict

    return await asyncio.gather(*(take_turn(attack) for attack in attacks))


def at_once(slots: int) -> int:
    """How many attacks to carry out at once: each may bring a neighbour, which needs a slot as well."""
    return max(1, min(MOST_AT_ONCE, slots // 2))


async def attack_everything(assault: Assault, runtime: str, *, slots: int, write: Callable[[str], None]) -> bool:
    """Carry out the whole catalogue, writing a table; whether every must-hold was tried and held."""
    attacks = [attack for attack in CATALOGUE if attack.applies_to(runtime, slots)]
    write(_row("attack", "", "outcome", "seconds", "what was tried"))

    def tell(verdict: Verdict) -> None:
        shown = verdict.outcome.upper() if verdict.outcome is not Outcome.HELD else verdict.outcome
        write(_row(verdict.attack, verdict.level, shown, f"{verdict.seconds:.1f}", verdict.tries))
        for detail in verdict.details:
            write(_row("", "", "", "", f"  {detail}"))

    begun = time.monotonic()
    verdicts = await carry_out(assault, attacks, turns=at_once(slots), tell=tell)
    write(f"runtime {runtime}, {time.monotonic() - begun:.0f} s: {_summary(verdicts)}")
    return all(verdict.outcome is Outcome.HELD for verdict in verdicts if verdict.level is Level.MUST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartTest:
    """The quick part before the first job. `mode` is `auto`, `always`, `warn` or `never`."""

    mode: str
    record: Path  # the file in which a self-test that held is remembered
    configuration: Sequence[object]  # whatever a self-test that held depends on
    now: Callable[[], datetime] = utc_now

    async def run(self, assault: Assault, runtime: str, *, slots: int) -> str:
        """What the worker list shows of it. Raises SetupError if a must-hold does not hold and `mode` insists."""
        if self.mode == "never":
            log.warning("no self-test is made, as --self-test-at-start says")
            return "never made"
        if self.mode != "always" and (held_at := await asyncio.to_thread(self._held_at)):
            log.info("self-test: held at %s with this configuration", held_at)
            return f"held at {held_at}"
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                verdicts = await carry_out(assault, for_start(CATALOGUE, runtime), turns=min(slots, MOST_AT_ONCE))
        except TimeoutError:
            return self._could_not([f"it took more than {PATIENCE:.0f} s"])
        if broken := _details(verdicts, Outcome.BROKEN):
            return self._insist("does not hold", broken, strict=self.mode != "warn")
        if untried := _details(verdicts, Outcome.UNTRIED):
            return self._could_not(untried)
        held_at = wire_time(self.now())
        log.info("self-test: held, in %.1f s", time.monotonic() - begun)
        await asyncio.to_thread(self._remember, held_at)
        return f"held at {held_at}"

    def _could_not(self, reasons: Sequence[str]) -> str:
        # No proof of a hole: a machine that has no image to try it in must be able to work.
        return self._insist("could not be made", reasons, strict=self.mode == "always")

    @staticmethod
    def _insist(what: str, details: Sequence[str], *, strict: bool) -> str:
        found = " ".join(f"{what}: {'; '.join(details)}".split())
        if strict:
            raise SetupError(f"self-test {found}; {ADVICE}")
        log.error("self-test %s", found)
        return found[:MOST_SHOWN]

    @property
    def _fingerprint(self) -> str:
        facts = [os.uname().release, os.uname().version, os.geteuid(), *self.configuration]
        return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()

    def _held_at(self) -> str | None:
        """When it last held, if it was just like this and not long ago."""
        try:
            told = json.loads(self.record.read_bytes())
            held_at = datetime.fromisoformat(told["held_at"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("cannot use %s: %s", self.record, error)
            return None
        age = self.now() - held_at.astimezone(UTC)
        current = told.get("fingerprint") == self._fingerprint and timedelta() <= age < VALIDITY
        return wire_time(held_at) if current else None

    def _remember(self, held_at: str) -> None:
        told = {"fingerprint": self._fingerprint, "held_at": held_at}
        write_durably(self.record, json.dumps(told).encode("ascii"))


def _details(verdicts: Iterable[Verdict], outcome: Outcome) -> list[str]:
    return sorted({detail for each in verdicts if each.outcome is outcome for detail in each.details})


def _row(attack: str, level: str, outcome: str, seconds: str, tries: str) -> str:
    return f"{attack:<24} {level:<6} {outcome:<8} {seconds:>7}  {tries}".rstrip()


def _summary(verdicts: Sequence[Verdict]) -> str:
    parts = []
    for level in Level:
        of_level = [verdict.outcome for verdict in verdicts if verdict.level is level]
        counts = {outcome: of_level.count(outcome) for outcome in Outcome}
        counted = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        parts.append(f"{level}-hold: {counted or 'none'}")
    return "; ".join(parts)
