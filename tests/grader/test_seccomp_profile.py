"""Our profile of system calls beside the engine's own, as the OCI runtime is given the two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from broadway_grader.runtimes.confinement import container_request
from broadway_grader.runtimes.hosts import write_hosts
from broadway_grader.runtimes.port import Place, Settings
from broadway_grader.runtimes.seccomp_profile import COMPARED_WITH, profile_for
from tests.grader.stages import sh

FACTS = {
    "ServerVersion": f"{COMPARED_WITH}+dfsg1",
    "Architecture": "x86_64",
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=default"],
}


def filter_of(engine: Any, request: Mapping[str, Any]) -> tuple[Any, ...]:
    """The default action, the architectures, and the rules, each by itself, of a container that was started."""
    container = engine.api.create_container_from_config(request)["Id"]
    try:
        engine.api.start(container)
        first = engine.api.inspect_container(container)["State"]["Pid"]
        status = Path(f"/proc/{first}/status").read_text().splitlines()
        (shim,) = (line.split()[1] for line in status if line.startswith("PPid:"))
        config = json.loads(Path(f"/proc/{shim}/cwd/config.json").read_text())["linux"]["seccomp"]
    finally:
        engine.api.remove_container(container, force=True)
    rules = {
        (name, rule["action"], rule.get("errnoRet"), json.dumps(rule.get("args") or []))
        for rule in config["syscalls"]
        for name in rule["names"]
    }
    return config["defaultAction"], config["architectures"], rules


def test_it_is_the_engines_own_less_io_uring(settings: Settings, place: Place, engine: Any) -> None:
    """As root, for only root sees what the OCI runtime is given."""
    facts = engine.api.info()
    if not facts["ServerVersion"].startswith(COMPARED_WITH):
        assert profile_for(facts) is None
        return
    write_hosts(settings.work_dir)
    own, ours = (
        filter_of(engine, container_request(sh("sleep 60"), place, settings, default_user="5:5", seccomp=profile))
        for profile in (None, profile_for(facts))
    )
    assert ours[:2] == own[:2]
    assert {name for name, *_ in own[2] - ours[2]} == {"io_uring_setup", "io_uring_enter", "io_uring_register"}
    assert ours[2] - own[2] == set()


@pytest.mark.parametrize(
    "other",
    [
        {"ServerVersion": "20.10.5"},
        {"ServerVersion": "25.0.0"},
        {"Architecture": "aarch64"},
        {"SecurityOptions": ["name=seccomp,profile=/etc/docker/strict.json"]},
        {"SecurityOptions": None},
        {"ServerVersion": None},
    ],
    ids=str,
)
def test_engines_that_it_was_not_compared_with_keep_their_own(other: Mapping[str, Any]) -> None:
    assert profile_for(FACTS) is not None
    assert profile_for({**FACTS, **other}) is None
