"""What a container used, read from its cgroup in the moment between its last process's end and the cgroup's.

The engine takes some tens of milliseconds to clear up; asking it instead would cost each stage a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CGROUPS = Path("/sys/fs/cgroup")


class Usage:
    """Of one container. None: not known, as where the engine is elsewhere or the container was too fast."""

    def __init__(self, facts: Mapping[str, Any], container: str) -> None:
        """`facts`: the engine's answer to "Get system information"."""
        of_systemd = facts.get("CgroupDriver") == "systemd"
        name = f"system.slice/docker-{container}.scope" if of_systemd else f"docker/{container}"
        self._unified = str(facts.get("CgroupVersion")) == "2"
        self._memory = _CGROUPS / name if self._unified else _CGROUPS / "memory" / name
        self._cpu = _CGROUPS / name if self._unified else _CGROUPS / "cpuacct" / name
        self._loop = asyncio.get_running_loop()
        self._first: int | None = None  # a pidfd of the container's first process
        self.memory_peak: int | None = None  # bytes, with the files that it had in memory
        self.cpu_seconds: float | None = None

    def watch(self) -> None:
        """Once it is started: read what there is when its first process ends, which is the last to do so."""
        for number in _words(self._memory / "cgroup.procs"):
            with contextlib.suppress(OSError):
                if _is_first(number):
                    self._first = os.pidfd_open(int(number))
                    self._loop.add_reader(self._first, self._ended)
                    return
        self._read()  # it has ended already

    def close(self) -> None:
        """Watch no longer; idempotent."""
        if self._first is not None:
            self._loop.remove_reader(self._first)
            os.close(self._first)
            self._first = None

    def _ended(self) -> None:
        self._read()
        self.close()

    def _read(self) -> None:
        with contextlib.suppress(IndexError):
            peak = _words(self._memory / ("memory.peak" if self._unified else "memory.max_usage_in_bytes"))
            self.memory_peak = int(peak[0])
        with contextlib.suppress(IndexError):
            if self._unified:  # "usage_usec N" comes first
                self.cpu_seconds = int(_words(self._cpu / "cpu.stat")[1]) / 1e6
            else:
                self.cpu_seconds = int(_words(self._cpu / "cpuacct.usage")[0]) / 1e9
            self.cpu_seconds = round(self.cpu_seconds, 3)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").split()
    except OSError:
        return []


def _is_first(number: str) -> bool:
    """Whether a process is the first of its pid namespace, that of a container."""
    for line in Path("/proc", number, "status").read_text("utf-8", errors="replace").splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) > 2 and line.split()[-1] == "1"
    return False
