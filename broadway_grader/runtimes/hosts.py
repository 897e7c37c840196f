"""The /etc/hosts of stages without a network, which are spared the engine's own networking.

For every container with a network, `none` included, the engine lets a copy of its own program run to fetch the new
network namespace: half of all the work of starting one. A container that is created as `NetworkDisabled` has a network
namespace as empty, with a loopback device that is up, from the OCI runtime itself. It lacks the /etc/hosts that the
engine would write, without which `localhost` is no name; so one is mounted.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def hosts_file(work_dir: Path) -> Path:
    """Where it is: one for all stages, none of which may write to it."""
    return work_dir / "hosts"


def write_hosts(work_dir: Path) -> None:
    """Write it, readable for every user of a container; whole or not at all. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=work_dir, prefix="hosts-")
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(HOSTS)
        os.fchmod(handle, 0o644)
    Path(name).replace(hosts_file(work_dir))
