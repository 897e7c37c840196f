"""The attacks that a grader must withstand: a catalogue, and what carries them out on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from broadway_grader.attacks.attack import Attack
from broadway_grader.attacks.bombs import BOMBS
from broadway_grader.attacks.job_directory import JOB_DIRECTORY
from broadway_grader.attacks.kernel import KERNEL
from broadway_grader.attacks.lifetime import LIFETIME
from broadway_grader.attacks.network import NETWORK
from broadway_grader.attacks.privileges import PRIVILEGES
from broadway_grader.attacks.results import RESULTS
from broadway_grader.attacks.surroundings import SURROUNDINGS

#: Every attack, the quiet ones first.
CATALOGUE: Sequence[Attack] = (
    *PRIVILEGES,
    *KERNEL,
    *SURROUNDINGS,
    *NETWORK,
    *JOB_DIRECTORY,
    *RESULTS,
    *LIFETIME,
    *BOMBS,
)
