"""What the operator of a cluster decides, as the use cases see it; `config.py` says what each option means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Times and bounds of a cluster, and what a course may ask for."""

    heartbeat_interval: int = 10  # seconds between a worker's heartbeats
    lease: timedelta = timedelta(seconds=30)  # of a claim, from the last heartbeat
    job_max_attempts: int = 3
    express_max_jobs: int = 5  # of a run whose jobs go first; 0: of none
    max_students: int = 50_000  # of a run
    max_stages: int = 20  # of a pipeline
    max_env_entries: int = 250  # of a run, a stage, a student
    max_env_bytes: int = 131_072  # of a stage's environment, merged and resolved
    max_stage_timeout: int = 3600  # seconds
    max_stage_memory: int | None = None  # bytes; None: whatever the graders have
    max_stage_cpus: float = 1_024
    max_stage_pids: int = 2**22
    allow_networking: bool = True
    allow_privileged: bool = False
    allow_root: bool = True  # as the `user` of a stage
    allowed_images: tuple[str, ...] = ("*",)  # patterns as in a shell, case-sensitive; `*` also matches a slash
    quarantine_after: int = 3  # infrastructure faults of a worker in a row
    quarantine_pause: timedelta = timedelta(seconds=60)  # until its first probe
    run_retention: timedelta | None = None  # how long an ended run is kept; None: for ever
    worker_retention: timedelta = timedelta(days=1)  # how long a silent worker stays in the list

    @property
    def worker_lost_after(self) -> timedelta:
        """The silence after which a worker is called lost: as long as its leases last."""
        return self.lease
