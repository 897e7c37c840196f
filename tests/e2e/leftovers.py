"""What grading may leave on a machine: containers and processes, known by the directory that they work in."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import docker

from broadway_grader.volumes import mounts


def containers_of(directory: Path) -> list[str]:
    """The ids of the containers, running or not, into which something below `directory` is mounted."""
    client = docker.APIClient()  # the plain API: it lists without a second look at containers that end meanwhile
    try:
        return [
            str(container["Id"])
            for container in client.containers(all=True)
            if any(Path(mount.get("Source", "")).is_relative_to(directory) for mount in container["Mounts"])
        ]
    finally:
        client.close()


def remove_containers_of(directory: Path) -> None:
    """Kill and remove them."""
    client = docker.APIClient()
    try:
        for container in containers_of(directory):
            client.remove_container(container, force=True)
    finally:
        client.close()


def unmount_below(directory: Path) -> None:
    """Unmount the /job directories of graders that were not started again."""
    for path in mounts.mounted_below(directory):
        mounts.detach(path)


def processes_of(directory: Path) -> dict[int, str]:
    """The ids and command lines of the processes on whose command line `directory` stands."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended since
        if str(directory) in line:
            found[int(file.parent.name)] = line
    return found


def kill_processes_of(directory: Path) -> None:
    """Kill them, in case what should have stopped them did not."""
    for pid in processes_of(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
