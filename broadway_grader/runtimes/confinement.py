"""What a stage's container is allowed: the whole of what the engine is asked for, from stage and settings. Pure.

The request is that of "Create a container" in the Docker Engine API reference, version 1.41, written out here rather
than made by the SDK: its helper adds the proxy settings, passwords included, of whoever runs the grader to every
container's environment.
"""

from __future__ import annotations

from typing import Any

from broadway_grader.domain import Stage
from broadway_grader.runtimes.hosts import hosts_file
from broadway_grader.runtimes.port import Place, Settings, UnusableStage
from broadway_grader.runtimes.users import is_surely_not_root

#: Label that says whose a container is; its value is the grader's instance.
INSTANCE_LABEL = "broadway.instance"
#: The least share of a CPU that the engine takes; it reads 0, to which smaller ones round, as no limit.
LEAST_NANO_CPUS = 10_000_000
#: Where a user that no image knows keeps what it calls its home.
HOME = "/tmp"  # noqa: S108 - the container's own


def container_request(
    stage: Stage, place: Place, settings: Settings, *, default_user: str | None, seccomp: str | None = None
) -> dict[str, Any]:
    """The body of the request that creates the container of a stage.

    `default_user` is what a stage runs as that does not say; None: what its image says. `seccomp` is the profile of
    system calls; None: the engine's own. Raises UnusableStage.
    """
    # A privileged stage is the operator's own, who allowed it, and has no use for its privileges as somebody else.
    user = stage.user or (None if stage.privileged else default_user)
    if not settings.allow_root_stages:
        _refuse_root(stage, user)
    home = {"HOME": HOME} if user is not None and user == default_user else {}
    request: dict[str, Any] = {
        "Image": stage.image,
        "Env": [f"{name}={value}" for name, value in (home | dict(stage.env)).items()],
        "Hostname": stage.host_name or "",
        "User": user or "",
        "WorkingDir": stage.working_dir or "",
        "NetworkDisabled": not stage.enable_networking,
        "Labels": {
            INSTANCE_LABEL: settings.instance,
            "broadway.job-id": place.job_id,
            "broadway.attempt": str(place.attempt),
            "broadway.stage": str(place.stage),
        },
        "HostConfig": _resources(stage, settings) | _isolation(stage, place, settings, seccomp),
    }
    if stage.entry_point:
        # An entry point given here replaces the image's command as well.
        request |= {"Entrypoint": list(stage.entry_point[:1]), "Cmd": list(stage.entry_point[1:])}
    return request


def memory_limit(stage: Stage, settings: Settings) -> int:
    """Bytes of memory that the stage may use."""
    return stage.memory or settings.limits.memory


def _resources(stage: Stage, settings: Settings) -> dict[str, Any]:
    limits, memory = settings.limits, memory_limit(stage, settings)
    return {
        "Memory": memory,
        "MemorySwap": memory,  # the sum of both: no swap, or a memory bomb would take the host's disk
        **({"CpusetCpus": stage.cpuset_cpus} if stage.cpuset_cpus else {}),
        "NanoCpus": max(int((stage.cpus or limits.cpus) * 1e9), LEAST_NANO_CPUS),
        "PidsLimit": stage.pids or limits.pids,
        "ShmSize": limits.tmp,
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in (("nofile", limits.open_files), ("core", 0), ("fsize", limits.disk))
        ],
    }


def _isolation(stage: Stage, place: Place, settings: Settings, seccomp: str | None) -> dict[str, Any]:
    # No masked paths are named: the engine's own then apply.
    options = ["no-new-privileges", *([f"seccomp={seccomp}"] if seccomp else [])]
    confined = {"Privileged": False, "CapDrop": ["ALL"], "SecurityOpt": options}
    return {
        "Mounts": _mounts(stage, place, settings),
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={settings.limits.tmp}"},  # noqa: S108
        "ReadonlyRootfs": settings.read_only if stage.read_only is None else stage.read_only,
        # "none" is what NetworkDisabled comes to, and holds for an engine that does not know the other.
        "NetworkMode": "bridge" if stage.enable_networking else "none",
        # Said because the engine's configuration may have other defaults for both.
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Init": True,  # reaps what the stage leaves, and lets signals through
        # Output is read while it is produced; the engine's own file of it would fill the disk.
        "LogConfig": {"Type": "none"},
        **({"Runtime": settings.oci_runtime} if settings.oci_runtime else {}),
        **({"Privileged": True} if stage.privileged else confined),
    }


def _mounts(stage: Stage, place: Place, settings: Settings) -> list[dict[str, Any]]:
    job = {"Type": "bind", "Source": str(place.directory), "Target": "/job"}
    if stage.enable_networking:
        return [job]  # the engine writes its /etc/hosts
    hosts = {"Type": "bind", "Source": str(hosts_file(settings.work_dir)), "Target": "/etc/hosts", "ReadOnly": True}
    return [job, hosts]


def _refuse_root(stage: Stage, user: str | None) -> None:
    if stage.privileged:
        raise UnusableStage("this grader runs no stage as root, and none that is privileged")
    if user is None or not is_surely_not_root(user):
        asked = f"user {stage.user}" if stage.user else "the image's user"
        raise UnusableStage(f"this grader runs no stage as root, which {asked} may be: give another user's number")
