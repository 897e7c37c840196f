"""Carrying out attacks on this machine's runtime, through the very code that runs students' jobs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import logging
import os
import resource
import time
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from broadway_grader.attacks.attack import ROOT, STRANGER, Attack, Evidence, Level, Untried
from broadway_grader.attacks.targets import Targets
from broadway_grader.domain import Job, JobResult, Reason, Stage
from broadway_grader.runner import JobRunner
from broadway_grader.runtimes.port import Limits
from broadway_grader.volumes.port import Bound
from broadway_grader.workspace import WorkDirectory

log = logging.getLogger(__name__)

#: Seconds after which a grader that is still busy with an attack has been brought down by it.
PATIENCE = 180.0
#: The variable that holds a secret in the grader's own environment from its first assault on.
_VARIABLE = "BROADWAY_SELF_TEST_SECRET"
#: Seconds that a neighbour has to begin.
_NEIGHBOUR_PATIENCE = 60.0


class Outcome(enum.StrEnum):
    """What came of an attack."""

    HELD = "held"
    BROKEN = "broken"  # the attack had success
    UNTRIED = "untried"  # it could not be carried out here


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one attack."""

    attack: str
    tries: str
    level: Level
    outcome: Outcome
    details: Sequence[str] = ()  # what went wrong
    seconds: float = 0.0


class Assault:
    """Carries out attacks, several at once if asked to."""

    def __init__(
        self,
        runner: JobRunner,
        directory: WorkDirectory,
        *,
        runtime: str,
        limits: Limits,
        bound: Bound,
        allow_root: bool = True,
        images: Mapping[str, str],
        secrets: Collection[str] = (),
    ) -> None:
        """`limits`, `bound`, `allow_root`: how the runner's stages are configured.

        `images`: what SHELL and PYTHON stand for; `secrets`: what no result may have in it.
        """
        self._runner = runner
        self._directory = directory
        self._runtime = runtime
        self._limits = limits
        # How much is too much, for attacks that want just a little more.
        sizes = {"JOB_BYTES": bound.bytes, "TMP_BYTES": limits.tmp, "FILE_BYTES": limits.disk, "JOB_FILES": bound.files}
        self._env = {name: str(size) for name, size in sizes.items()}
        self._allow_root = allow_root
        self._images = images
        # Whatever inherits our environment has this in it.
        os.environ[_VARIABLE] = self._variable = uuid.uuid4().hex
        self._secrets = {self._variable, *secrets}

    async def run(self, attack: Attack) -> Verdict:
        """Carry out one attack and look at the host afterwards."""
        begun = time.monotonic()
        with Targets(self._directory, self._secrets) as targets:
            outcome, details = await self._run(attack, targets)
        verdict = Verdict(
            attack=attack.name,
            tries=attack.tries,
            level=attack.level,
            outcome=outcome,
            details=details,
            seconds=round(time.monotonic() - begun, 1),
        )
        log.info("attack %s: %s in %.1f s %s", attack.name, verdict.outcome, verdict.seconds, "; ".join(details))
        return verdict

    async def _run(self, attack: Attack, targets: Targets) -> tuple[Outcome, Sequence[str]]:
        job = self._job(attack.stages, targets)
        before = _memory_peak()
        result: JobResult | None = None
        faults: list[str] = []
        untried: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE), self._neighbour(attack.neighbour, targets):
                result = await self._runner.run(job)
        except TimeoutError:
            faults.append(f"the grader was busy with it for more than {PATIENCE:.0f} s")
        except Untried as reason:
            untried.append(str(reason))
        if result is not None:
            evidence = Evidence(result=result, limits=self._limits, grown=_memory_peak() - before)
            try:
                _blame(result)
                faults.extend(attack.check(evidence))
            except Untried as reason:
                untried.append(str(reason))
        faults.extend(await asyncio.to_thread(lambda: list(targets.faults(result))))
        if any(path.name.startswith(job.job_id) for path in self._directory.jobs.iterdir()):
            faults.append("its /job was not removed")
        if faults:
            return Outcome.BROKEN, faults
        return (Outcome.UNTRIED if untried else Outcome.HELD), untried

    def _job(self, stages: Sequence[Stage], targets: Targets) -> Job:
        dressed = [self._dressed(stage, targets) for stage in stages]
        return Job(job_id=uuid.uuid4().hex[:24], attempt=1, stages=dressed)

    def _dressed(self, stage: Stage, targets: Targets) -> Stage:
        """The stage with all that it cannot know before it is carried out."""
        env = {**targets.env, **self._env, **stage.env}
        # Where nobody is root, the attack is made by whoever comes nearest.
        user = STRANGER if stage.user == ROOT and not self._allow_root else stage.user
        return dataclasses.replace(stage, image=self._images[stage.image], env=env, user=user)

    @contextlib.asynccontextmanager
    async def _neighbour(self, stage: Stage | None, targets: Targets) -> AsyncIterator[None]:
        """Another job that runs meanwhile."""
        if stage is None:
            yield
            return
        job = self._job([stage], targets)
        running = asyncio.create_task(self._runner.run(job), name=f"neighbour {job.job_id}")
        try:
            # It cannot tell us that it has begun but by what it does.
            deadline = time.monotonic() + _NEIGHBOUR_PATIENCE
            while not any(self._directory.jobs.glob(f"{job.job_id}-*/**/begun")):
                if running.done() or time.monotonic() > deadline:
                    raise Untried("the job that was to run beside it did not")
                await asyncio.sleep(0.05)
            yield
        finally:
            running.cancel()
            await asyncio.wait({running})


def _blame(result: JobResult) -> None:
    """Raises Untried if it was the grader or its engine that failed, not the attack."""
    last = result.stages[-1]
    if last.reason in (Reason.RUNTIME_ERROR, Reason.IMAGE_UNAVAILABLE):
        raise Untried(last.message or str(last.reason))


def _memory_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
