"""What the operator of a cluster decides, as the use cases see it; `config.py` says what each option means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Times and bounds of a cluster."""

    heartbeat_interval: int = 10  # seconds between a worker's heartbeats
    lease: timedelta = timedelta(seconds=30)  # of a claim, from the last heartbeat
    job_max_attempts: int = 3
    max_stage_timeout: int = 3600  # seconds
    allow_privileged: bool = False
    quarantine_after: int = 3  # infrastructure faults of a worker in a row
    quarantine_pause: timedelta = timedelta(seconds=60)  # until its first probe
    run_retention: timedelta | None = None  # how long an ended run is kept; None: for ever
    worker_retention: timedelta = timedelta(days=1)  # how long a silent worker stays in the list

    @property
    def worker_lost_after(self) -> timedelta:
        """The silence after which a worker is called lost: as long as its leases last."""
        return self.lease
