"""What the operator decides."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from broadway_api.policy import Policy


def test_a_worker_is_lost_when_its_leases_are() -> None:
    assert Policy(lease=timedelta(seconds=7)).worker_lost_after == timedelta(seconds=7)


def test_a_lease_outlives_a_missed_heartbeat() -> None:
    policy = Policy()
    assert policy.lease > 2 * timedelta(seconds=policy.heartbeat_interval)


def test_a_policy_does_not_change_while_it_is_in_force() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy().job_max_attempts = 5  # type: ignore[misc]
