"""The runtimes, and the choice between them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from broadway_grader.domain import parse_bytes
from broadway_grader.errors import SetupError
from broadway_grader.runtimes.docker import DockerRuntime
from broadway_grader.runtimes.port import Limits, Runtime
from broadway_grader.runtimes.sandbox import SandboxRuntime
from config import GraderConfig

log = logging.getLogger(__name__)

Builder = Callable[[GraderConfig, Limits, str], Runtime]

#: What makes each runtime from the options, the limits and the grader's instance; `auto` tries them in this order.
RUNTIMES: Mapping[str, Builder] = {
    "docker": lambda config, limits, instance: DockerRuntime(
        limits=limits, slots=config.slot_count, instance=instance, pull_policy=config.image_pull_policy
    ),
    "sandbox": lambda config, limits, instance: SandboxRuntime(limits=limits, slots=config.slot_count),
}


async def choose(config: GraderConfig, instance: str) -> Runtime:
    """The runtime that the configuration names, or with `auto` the first that works here; opened and without leftovers.

    Raises SetupError if none does.
    """
    try:
        memory = parse_bytes(config.stage_memory)
    except ValueError as error:
        raise SetupError(f"--stage-memory: {error}") from None
    limits = Limits(memory=memory, cpus=config.stage_cpus, pids=config.stage_pids, log_bytes=config.max_log_bytes)
    names = tuple(RUNTIMES) if config.runtime == "auto" else (config.runtime,)
    problems: list[str] = []
    for name in names:
        runtime = RUNTIMES[name](config, limits, instance)
        try:
            description = await runtime.open()
            await runtime.remove_leftovers()
        except SetupError as error:
            await runtime.close()
            problems.append(f"{name}: {error}")
        else:
            reason = f", because of {'; '.join(problems)}" if problems else ""
            log.info("runtime %s: %s%s", name, description, reason)
            return runtime
    raise SetupError("; ".join(problems))
