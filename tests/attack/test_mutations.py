"""Each defence matters: switched off alone, the attack that it is there against has success, and is seen to.

`make attack-mutations` runs these alone and shows them one by one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from broadway_grader.attacks.assault import Outcome
from broadway_grader.attacks.self_test import carry_out
from tests.attack.assaults import SLOTS, assault_on, named
from tests.attack.mutations import (
    Mutation,
    boundless_output,
    container,
    inherited_environment,
    limits,
    links_followed,
    results_followed,
    together,
    unbounded,
    unsealed,
    unwatched,
    words,
)

MUTATIONS = [
    Mutation(
        defence="no capabilities",
        off=container(CapDrop=None),
        attacks=("capabilities", "device-nodes", "change-owner", "become-another-user", "raw-sockets"),
    ),
    Mutation(
        defence="no new privileges",
        off=container(SecurityOpt=[]),
        attacks=("new-privileges", "set-user-id-program"),
        options={"job_bound": "watch"},  # a mounted /job takes no set-user-id programs either
    ),
    Mutation(
        defence="system call filter",
        off=container(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]),
        attacks=("system-call-filter", "kernel-keys", "namespaces"),
    ),
    Mutation(
        defence="a filter without io_uring",
        off=container(SecurityOpt=["no-new-privileges"]),
        attacks=("kernel-surface",),
    ),
    Mutation(
        defence="not privileged",
        off=container(CapDrop=None, CapAdd=["SYS_ADMIN"], SecurityOpt=["apparmor=unconfined"]),
        attacks=("mount",),
    ),
    Mutation(
        defence="no network",
        off=container(NetworkDisabled=False, NetworkMode="bridge"),
        attacks=("routes", "connections"),
    ),
    Mutation(
        defence="network of its own",
        off=container(NetworkDisabled=False, NetworkMode="host"),
        attacks=("connections", "unix-sockets"),
    ),
    Mutation(defence="processes", off=container(PidsLimit=0), attacks=("fork-bomb", "process-table")),
    Mutation(
        defence="memory",
        off=container(Memory=0, MemorySwap=0),
        attacks=("memory-bomb", "memory-bomb-of-many"),
    ),
    Mutation(defence="size of /tmp", off=container(Tmpfs={}), attacks=("memory-files",)),
    Mutation(defence="size of /dev/shm", off=container(ShmSize=256 * 1024**2), attacks=("memory-files",)),
    Mutation(defence="a user that is not root", off=container(User=""), attacks=("ordinary-user",)),
    Mutation(defence="open files", off=container(Ulimits=[]), attacks=("open-file-bomb",)),
    Mutation(defence="processes of its own", off=container(PidMode="host"), attacks=("grader-process",)),
    Mutation(
        defence="links are not followed when /job is removed",
        off=links_followed,
        attacks=("links-to-the-host",),
        options={"job_bound": "watch"},
    ),
    Mutation(
        defence="/job is bounded",
        off=unbounded,
        attacks=("disk-bomb", "file-bomb"),
        options={"job_bound": "watch"},
    ),
    Mutation(
        defence="what is written outside of /job is bounded",
        off=unwatched,
        attacks=("disk-bomb-outside", "file-bomb-outside"),
    ),
    Mutation(defence="output is bounded", off=boundless_output, attacks=("output-bomb",)),
    Mutation(runtime="sandbox", defence="output is bounded", off=boundless_output, attacks=("output-bomb",)),
    Mutation(defence="results are cleared before", off=unsealed, attacks=("forged-results", "results-kept-out")),
    Mutation(defence="results are opened without following", off=results_followed, attacks=("results-as-link",)),
    Mutation(
        defence="nothing but /job is mounted",
        off=container(Binds=["/var/run:/run"]),
        attacks=("engine-socket",),
    ),
    Mutation(
        runtime="sandbox",
        defence="no capabilities",
        off=words("--cap-drop", follow=1, added=("--cap-add", "ALL")),
        attacks=("capabilities",),
    ),
    Mutation(
        runtime="sandbox",
        defence="no namespaces of its own",
        off=together(words("--disable-userns"), words("--seccomp", follow=1)),
        attacks=("namespaces",),
    ),
    Mutation(
        runtime="sandbox",
        defence="system call filter",
        off=words("--seccomp", follow=1),
        attacks=("system-call-filter", "kernel-keys", "kernel-programs", "kernel-surface"),
    ),
    Mutation(
        runtime="sandbox",
        defence="no network",
        off=words("--unshare-net"),
        attacks=("routes", "connections", "unix-sockets"),
    ),
    Mutation(
        runtime="sandbox",
        defence="size of /tmp and /dev/shm",
        off=words("--size", "--size", follow=1),
        attacks=("memory-files",),
    ),
    Mutation(
        runtime="sandbox",
        defence="root is read-only",
        off=words("--remount-ro", "--remount-ro", follow=1),
        attacks=("read-only-usr",),
    ),
    Mutation(
        runtime="sandbox",
        defence="host's files are not there",
        off=words("--remount-ro", follow=1, added=("--dir", "/var/tmp", "--bind", "/var/tmp", "/var/tmp")),
        attacks=("host-files",),
    ),
    Mutation(runtime="sandbox", defence="processes", off=limits("--nproc"), attacks=("fork-bomb", "process-table")),
    Mutation(runtime="sandbox", defence="memory", off=limits("--as"), attacks=("memory-bomb",)),
    Mutation(runtime="sandbox", defence="open files", off=limits("--nofile"), attacks=("open-file-bomb",)),
    Mutation(runtime="sandbox", defence="nothing is inherited", off=inherited_environment, attacks=("environment",)),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.runtime}: {mutation.defence}")
async def test_a_defence_switched_off_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    async with assault_on(mutation.runtime, tmp_path, **mutation.options) as assault:
        with mutation.off():
            verdicts = await carry_out(assault, [named(name) for name in mutation.attacks], turns=SLOTS // 2)
    assert {verdict.attack: verdict.outcome for verdict in verdicts} == dict.fromkeys(mutation.attacks, Outcome.BROKEN)
