"""The docker runtime: one container of the Docker Engine per stage, through the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from datetime import UTC, datetime

import docker.errors

from broadway_grader.domain import Output, Reason, Stage, StageResult
from broadway_grader.ending import Ending
from broadway_grader.errors import SetupError
from broadway_grader.runtimes.confinement import INSTANCE_LABEL, container_request
from broadway_grader.runtimes.container import Container, Outcome
from broadway_grader.runtimes.engine import ENGINE_ERRORS, Engine, explanation
from broadway_grader.runtimes.hosts import write_hosts
from broadway_grader.runtimes.image_news import ImageNews
from broadway_grader.runtimes.images import Images, ImageUnavailable
from broadway_grader.runtimes.output import outputs_of_stage
from broadway_grader.runtimes.port import OnOutput, Place, Settings, UnusableHere, UnusableStage, nobody
from broadway_grader.runtimes.preparation import Preparation
from broadway_grader.runtimes.seccomp_profile import profile_for
from broadway_grader.runtimes.users import user_of_slot

log = logging.getLogger(__name__)

#: How long a pull may take that decides whether this runtime is taken at all.
_REQUIRED_IMAGE_SECONDS = 60.0


class DockerRuntime:
    """Runs stages in containers of the engine that the environment names."""

    name = "docker"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A stage needs a thread that waits for its end, two that read its output, one for what else there is to do, and
        # one that gets the next stage ready, which may have to pull; beside them there is one that reads news.
        self._engine = Engine(threads=5 * settings.slots + 4)
        self._news = ImageNews(self._engine)
        self._images: Images | None = None
        self._seccomp: str | None = None
        self._unremoved: set[str] = set()
        # By slot: the stage that comes next, and the removal of the one before it.
        self._next: dict[int, Preparation] = {}
        self._removing: dict[int, asyncio.Task[None]] = {}

    @property
    def sees_our_mounts(self) -> bool:
        return self._engine.sees_our_mounts

    async def open(self) -> str:
        description = await self._engine.open()
        if self._settings.oci_runtime:
            self._engine.require_runtime(self._settings.oci_runtime)
            description += f" with {self._settings.oci_runtime}"
        self._seccomp = profile_for(self._engine.facts)
        try:
            await self._engine.call(write_hosts, self._settings.work_dir)
        except OSError as error:
            raise SetupError(f"cannot write to the work directory {self._settings.work_dir}: {error}") from error
        self._images = Images(self._engine.api, self._settings.image_pull_policy, self._engine.call, self._news.changes)
        if self._settings.auto_image:
            await self._require_image(self._settings.auto_image, self._images)
        return description

    async def remove_leftovers(self) -> None:
        filters = {"label": f"{INSTANCE_LABEL}={self._settings.instance}"}
        api, call = self._engine.api, self._engine.call
        try:
            leftovers = await call(api.containers, all=True, filters=filters)
            for container in leftovers:
                log.warning("removing container %s that an earlier life left", container["Id"][:12])
                with contextlib.suppress(docker.errors.NotFound):
                    await call(api.remove_container, container["Id"], force=True, v=True)
        except ENGINE_ERRORS as error:
            raise SetupError(f"cannot remove the containers of an earlier life: {error}") from error

    async def run_stage(
        self,
        stage: Stage,
        place: Place,
        ending: Ending | None = None,
        on_output: OnOutput = nobody,
        *,
        following: Stage | None = None,
    ) -> StageResult:
        # In a task of its own, which is told to end and never cancelled: a cancellation between a call to the engine
        # and its answer would leave a container that nobody knows of.
        ending = ending or Ending()
        running = asyncio.create_task(
            self._run(stage, place, ending, on_output, following), name=f"stage {place.job_id}/{place.stage}"
        )
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            ending.order(Reason.RUNTIME_ERROR, "it was stopped")
            await asyncio.wait({running})
            raise

    async def release(self, slot: int) -> None:
        if (unwanted := self._next.pop(slot, None)) is not None and (container := await unwanted.discard()) is not None:
            await self._remove(container)
        if removing := self._removing.pop(slot, None):
            await asyncio.wait({removing})

    async def close(self) -> None:
        for slot in {*self._next, *self._removing}:
            await self.release(slot)
        if self._images is not None:
            self._images.close()
            self._images = None
            await self._remove_forgotten()
        await self._news.close()
        self._engine.close()

    async def _run(
        self, stage: Stage, place: Place, ending: Ending, on_output: OnOutput, following: Stage | None
    ) -> StageResult:
        outcome = Outcome()
        limits = self._settings.limits
        outputs = outputs_of_stage(limits.log_bytes, ending, stop=limits.stop_at_log_bytes)
        if stage.logs:
            on_output(outputs)
        begun = datetime.now(UTC)
        try:
            await self._remove_forgotten()
            preparation = await self._prepared(stage, place)
            if (container := await preparation.container(ending)) is not None:
                outcome = container.outcome
                try:
                    if container.id and not ending.ordered:
                        if following is not None:
                            after = dataclasses.replace(place, stage=place.stage + 1)
                            self._next[place.slot] = Preparation(self._make, following, after)
                        await container.run(stage.timeout, limits.disk, ending, outputs if stage.logs else ())
                finally:
                    await self._remove_after(container, place.slot)
        except UnusableStage as error:
            outcome.reason, outcome.message = Reason.STAGE_FAILED, str(error)
        except UnusableHere as error:
            outcome.reason, outcome.message = Reason.RUNTIME_ERROR, str(error)
        except ImageUnavailable as error:
            outcome.reason, outcome.message = Reason.IMAGE_UNAVAILABLE, str(error)
        except ENGINE_ERRORS as error:
            log.error("the engine failed stage %d of job %s: %s", place.stage, place.job_id, error)  # noqa: TRY400
            outcome.reason, outcome.message = Reason.RUNTIME_ERROR, f"the Docker Engine failed: {explanation(error)}"
        if ending.ordered and outcome.reason is not Reason.RUNTIME_ERROR:
            outcome.reason, outcome.message = ending.reason, ending.message
        return StageResult(
            started_at=outcome.started_at or begun,
            finished_at=datetime.now(UTC),
            runtime=self.name,
            exit_code=outcome.exit_code,
            reason=outcome.reason,
            message=outcome.message,
            stdout=outputs[0].result() if stage.logs else Output(),
            stderr=outputs[1].result() if stage.logs else Output(),
            memory_peak_bytes=outcome.memory_peak,
            cpu_seconds=outcome.cpu_seconds,
            image=stage.image,
            image_digest=outcome.image_digest,
        )

    def _user(self, place: Place) -> str | None:
        users = self._settings.stage_users
        if users == "auto" and self._engine.maps_users:
            return None  # the ids of our range do not exist there, and whoever the image names is nobody on the host
        return user_of_slot(users, place.slot)

    def _refuse_foreigner(self, stage: Stage) -> None:
        """What a stage leaves in /job, its grader must be able to remove; raises UnusableHere if it could not."""
        ours = os.geteuid()
        if stage.user is None or ours == 0 or self._engine.maps_users:
            return
        if stage.user.partition(":")[0] != str(ours):
            raise UnusableHere(f"this grader is not root and runs stages only as its own user {ours}, not {stage.user}")

    @staticmethod
    async def _require_image(image: str, images: Images) -> None:
        """Raises SetupError without it: an engine that can have no images is of no use to a newcomer."""
        try:
            async with asyncio.timeout(_REQUIRED_IMAGE_SECONDS):
                await images.ensure(image)
        except TimeoutError:
            raise SetupError(f"pulling image {image} takes more than {_REQUIRED_IMAGE_SECONDS:.0f} s") from None
        except (ImageUnavailable, *ENGINE_ERRORS) as error:
            raise SetupError(str(error)) from error

    async def _ensure_image(self, image: str, ending: Ending) -> str | None:
        """The image's digest, or None if an order to end came first: a pull may take minutes."""
        assert self._images is not None, "open() comes first"  # noqa: S101 - a mistake of ours, not of a stage
        pull = asyncio.create_task(self._images.ensure(image))
        await ending.first_of(pull)
        if not pull.done():
            pull.cancel()
            await asyncio.wait({pull})
            return None
        return pull.result()

    async def _make(self, stage: Stage, place: Place, ending: Ending) -> Container | None:
        self._refuse_foreigner(stage)
        request = container_request(stage, place, self._settings, default_user=self._user(place), seccomp=self._seccomp)
        digest = await self._ensure_image(stage.image, ending)
        if digest is None:
            return None
        container = Container(self._engine, request, Outcome(image_digest=digest))
        await container.create()
        return container

    async def _prepared(self, stage: Stage, place: Place) -> Preparation:
        """What was begun for this stage while the one before it ran, or a beginning."""
        preparation = self._next.pop(place.slot, None)
        if preparation is not None and preparation.is_for(stage, place):
            return preparation
        if preparation is not None and (container := await preparation.discard()) is not None:
            await self._remove(container)
        return Preparation(self._make, stage, place)

    async def _remove_after(self, container: Container, slot: int) -> None:
        """Remove a container that was run: while the next stage runs, or the result is on its way."""
        if removing := self._removing.pop(slot, None):
            await asyncio.wait({removing})
        # Of one that did not succeed it is not sure that it has ended, before it is removed.
        if container.outcome.succeeded:
            self._removing[slot] = asyncio.create_task(self._remove(container), name=f"removing {container.id[:12]}")
        else:
            await self._remove(container)

    async def _remove(self, container: Container) -> None:
        if container.id:
            await self._remove_by_id(container.id)

    async def _remove_by_id(self, container: str) -> None:
        try:
            await self._engine.call(self._engine.api.remove_container, container, force=True, v=True)
        except docker.errors.NotFound:
            self._unremoved.discard(container)
        except ENGINE_ERRORS as error:
            log.error("cannot remove container %s, trying again later: %s", container[:12], error)  # noqa: TRY400
            self._unremoved.add(container)
        else:
            self._unremoved.discard(container)

    async def _remove_forgotten(self) -> None:
        for container in tuple(self._unremoved):
            await self._remove_by_id(container)
