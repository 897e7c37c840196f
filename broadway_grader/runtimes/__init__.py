"""The runtimes, and the choice between them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from broadway_grader.errors import SetupError
from broadway_grader.runtimes.docker import DockerRuntime
from broadway_grader.runtimes.port import Runtime, Settings
from broadway_grader.runtimes.sandbox import SandboxRuntime

log = logging.getLogger(__name__)

#: Every runtime by its name, in the order in which `auto` tries them.
RUNTIMES: Mapping[str, Callable[[Settings], Runtime]] = {
    "docker": DockerRuntime,
    "sandbox": SandboxRuntime,
}


async def choose(wanted: str, settings: Settings) -> Runtime:
    """The runtime of that name, or for `auto` the first that works here; opened, and rid of its leftovers.

    Says which and why in one line of the log. Raises SetupError if none works.
    """
    problems: list[str] = []
    if wanted == "auto" and settings.oci_runtime:
        wanted = "docker"  # whoever names an OCI runtime must not find stages in a weaker box
    if wanted != "auto":
        settings = replace(settings, auto_image="")
    for name in tuple(RUNTIMES) if wanted == "auto" else (wanted,):
        runtime = RUNTIMES[name](settings)
        try:
            description = await runtime.open()
            await runtime.remove_leftovers()
        except SetupError as error:
            await runtime.close()
            problems.append(f"{name}: {error}")
        else:
            reason = f" (auto; {'; '.join(problems)})" if problems else " (auto)" if wanted == "auto" else ""
            log.info("runtime %s: %s%s", name, description, reason)
            return runtime
    raise SetupError("; ".join(problems))
