"""The plan of faults: the same for the same seed, and never without the worst."""

from __future__ import annotations

from tests.chaos.load import plan_run
from tests.chaos.schedule import EVERYTHING, LEASE, Fault, Kind, plan


def faults(seed: int) -> list[Fault]:
    return plan(seed, 62, graders=["grader-0", "grader-1"], apis=["api-0"], nodes=["node-0", "node-1", "node-2"])


def test_a_seed_says_everything_that_will_happen() -> None:
    assert faults(1) == faults(1)
    assert faults(1) != faults(2)
    assert plan_run(1, 3) == plan_run(1, 3)
    assert plan_run(1, 3) != plan_run(2, 3)


def test_everything_is_killed_at_once_in_mid_run() -> None:
    for seed in range(20):
        worst = [fault for fault in faults(seed) if fault.target == EVERYTHING]
        assert [fault.kind for fault in worst] == [Kind.KILL]
        assert 20 < worst[0].at < 40


def test_who_is_frozen_or_cut_off_outlasts_its_leases() -> None:
    long = [fault for seed in range(20) for fault in faults(seed) if fault.kind in (Kind.FREEZE, Kind.CUT_OFF)]
    assert all(fault.seconds > LEASE for fault in long if not fault.target.startswith(("node", "primary")))
    assert {fault.kind for fault in long} == {Kind.FREEZE, Kind.CUT_OFF}
