"""A runtime without containers: a stage is a pause and an exit code. Everything around it is the real grader."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from broadway_grader.domain import Output, Reason, Stage, StageResult
from broadway_grader.ending import Ending
from broadway_grader.runtimes.port import OnOutput, Place, Settings, nobody
from tests.chaos.outcomes import Outcome


class FakeRuntime:
    """Leaves a file in /job for every stage, as stages do."""

    name = "fake"
    sees_our_mounts = True

    def __init__(self, settings: Settings) -> None:
        del settings  # it has no limits to keep

    async def open(self) -> str:
        return "pauses instead of containers"

    async def remove_leftovers(self) -> None:
        """A stage is a task of the process, and ends with it."""

    async def run_stage(
        self,
        stage: Stage,
        place: Place,
        ending: Ending | None = None,
        on_output: OnOutput = nobody,
        *,
        following: Stage | None = None,
    ) -> StageResult:
        del ending, following  # a pause and an exit code give no cause for them
        started_at = datetime.now(UTC)
        outcome = Outcome.of(stage.env)
        (place.directory / f"stage-{place.stage}").touch(exist_ok=False)
        await asyncio.sleep(outcome.seconds)
        return StageResult(
            started_at=started_at,
            finished_at=datetime.now(UTC),
            runtime=self.name,
            exit_code=outcome.exit_code,
            reason=Reason.STAGE_FAILED if outcome.exit_code else None,
            stdout=Output(text=self.printed(place.job_id, place.attempt, place.stage)),
            image=stage.image,
        )

    @staticmethod
    def printed(job_id: str, attempt: int, stage: int) -> str:
        """What a stage prints: whose result was accepted can be told by it."""
        return f"stage {stage} of {job_id} at attempt {attempt}\n"

    async def release(self, slot: int) -> None:
        """Nothing outlives its stage."""

    async def close(self) -> None:
        """There is nothing to give back."""
