"""The docker runtime: one container of the Docker Engine per stage, through the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import docker
import docker.errors
import docker.types
import requests

from broadway_grader.domain import Output, Reason, Stage, StageResult
from broadway_grader.errors import SetupError
from broadway_grader.runtimes.attach import AttachedStream
from broadway_grader.runtimes.images import Answer, Images, ImageUnavailable
from broadway_grader.runtimes.output import BoundedOutput
from broadway_grader.runtimes.port import Place, Settings

log = logging.getLogger(__name__)

#: Label that says whose a container is; its value is the grader's instance.
INSTANCE_LABEL = "broadway.instance"
#: Seconds that one call of the engine may take.
ENGINE_TIMEOUT = 60.0
#: Seconds in which an engine must answer at all to be taken for one.
PROBE_TIMEOUT = 10.0
#: Seconds that a killed container may take to end, and its last output to arrive.
KILL_GRACE = 10.0
#: Open files of a process; the engine's default is often a million, which makes some programs close a million of them.
OPEN_FILES = 4096

ENGINE_ERRORS = (docker.errors.DockerException, requests.RequestException)
# How the engine says that a container cannot be started for a reason that its stage brought along, and the exit code
# that a shell would have given.
_START_FAULTS = (
    (re.compile(r"exec: .*(executable file not found|no such file or directory)"), 127),
    (re.compile(r"exec: .*(permission denied|is a directory|exec format error)"), 126),
    (re.compile(r"unable to find (user|group)|no matching entries in (passwd|group)"), 126),
)
_EXIT_MESSAGES = {
    126: "the entry point could not be executed",
    127: "the entry point, or a command in it, was not found",
}


@dataclasses.dataclass(kw_only=True)
class _Outcome:
    """What is known of a stage so far."""

    exit_code: int | None = None
    reason: Reason | None = None
    message: str | None = None
    started_at: datetime | None = None


class DockerRuntime:
    """Runs stages in containers of the engine that the environment names (`DOCKER_HOST`; default: the local socket).

    The SDK blocks, so each of its calls has a thread, from a pool of the runtime's own: a stage needs one that waits
    for its end, two that read its output, and one for what else there is to do.
    """

    name = "docker"

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits
        self._instance = settings.instance
        self._pull_policy = settings.image_pull_policy
        self._connections = 4 * settings.slots + 4
        self._threads = ThreadPoolExecutor(max_workers=self._connections, thread_name_prefix="docker")
        self._client: Any = None
        self._images: Images | None = None
        self._unremoved: set[str] = set()

    async def open(self) -> str:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                connect = functools.partial(
                    docker.from_env, timeout=ENGINE_TIMEOUT, max_pool_size=self._connections, version="auto"
                )
                self._client = await self._call(connect)
                version = await self._call(self._api.version)
        except TimeoutError:
            raise SetupError(f"no Docker Engine answers within {PROBE_TIMEOUT:.0f} s") from None
        except ENGINE_ERRORS as error:
            raise SetupError(f"no Docker Engine answers: {error}") from error
        self._images = Images(self._api, self._pull_policy, self._call)
        return f"Docker Engine {version.get('Version')} at {self._api.base_url}"

    async def remove_leftovers(self) -> None:
        filters = {"label": f"{INSTANCE_LABEL}={self._instance}"}
        try:
            leftovers = await self._call(self._api.containers, all=True, filters=filters)
            for container in leftovers:
                log.warning("removing container %s that an earlier life left", container["Id"][:12])
                with contextlib.suppress(docker.errors.NotFound):
                    await self._call(self._api.remove_container, container["Id"], force=True, v=True)
        except ENGINE_ERRORS as error:
            raise SetupError(f"cannot remove the containers of an earlier life: {error}") from error

    async def run_stage(self, stage: Stage, place: Place) -> StageResult:
        # In a task of its own, which is told to stop and never cancelled: a cancellation between a call to the engine
        # and its answer would leave a container that nobody knows of.
        stop = asyncio.Event()
        running = asyncio.create_task(self._run(stage, place, stop), name=f"stage {place.job_id}/{place.stage}")
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait({running})
            raise

    async def close(self) -> None:
        if self._images is not None:
            self._images.close()
        if self._client is not None:
            await self._remove_forgotten()
            self._client.close()
            self._client = None
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _api(self) -> Any:
        return self._client.api

    async def _run(self, stage: Stage, place: Place, stop: asyncio.Event) -> StageResult:
        assert self._images is not None, "open() comes first"  # noqa: S101 - a mistake of ours, not of a stage
        outcome = _Outcome()
        outputs = (BoundedOutput(self._limits.log_bytes), BoundedOutput(self._limits.log_bytes))
        begun, digest = datetime.now(UTC), None
        try:
            await self._remove_forgotten()
            digest = await self._ensure_image(stage.image, stop)
            if digest is not None:
                await self._run_container(stage, place, stop, outcome, outputs)
        except ImageUnavailable as error:
            outcome.reason, outcome.message = Reason.IMAGE_UNAVAILABLE, str(error)
        except ENGINE_ERRORS as error:
            log.error("the engine failed stage %d of job %s: %s", place.stage, place.job_id, error)  # noqa: TRY400
            outcome.reason, outcome.message = Reason.RUNTIME_ERROR, f"the Docker Engine failed: {_explanation(error)}"
        if stop.is_set() and outcome.reason is None:
            outcome.reason, outcome.message = Reason.RUNTIME_ERROR, "it was stopped"
        return StageResult(
            started_at=outcome.started_at or begun,
            finished_at=datetime.now(UTC),
            runtime=self.name,
            exit_code=outcome.exit_code,
            reason=outcome.reason,
            message=outcome.message,
            stdout=outputs[0].result() if stage.logs else Output(),
            stderr=outputs[1].result() if stage.logs else Output(),
            image=stage.image,
            image_digest=digest,
        )

    async def _ensure_image(self, image: str, stop: asyncio.Event) -> str | None:
        """The image's digest, or None if a stop came first: a pull may take minutes."""
        assert self._images is not None  # noqa: S101
        pull = asyncio.create_task(self._images.ensure(image))
        await _first_of(pull, stop)
        if not pull.done():
            pull.cancel()
            await asyncio.wait({pull})
            return None
        return pull.result()

    async def _run_container(
        self,
        stage: Stage,
        place: Place,
        stop: asyncio.Event,
        outcome: _Outcome,
        outputs: tuple[BoundedOutput, BoundedOutput],
    ) -> None:
        try:
            container = await self._call(self._create, stage, place)
        except docker.errors.APIError as error:
            if error.status_code != 400:
                raise
            # The engine read the request and found a value in it that cannot be: a host name, a limit, no command.
            outcome.reason, outcome.message = Reason.STAGE_FAILED, _explanation(error)
            return
        try:
            async with self._attached(container, outputs if stage.logs else ()) as copies:
                if await self._start(container, outcome):
                    await self._wait(container, stage, stop, outcome)
                    if copies:  # which end with the container's last process
                        await asyncio.wait(copies, timeout=KILL_GRACE)
        finally:
            await self._remove(container)

    def _create(self, stage: Stage, place: Place) -> str:
        limits = self._limits
        memory = stage.memory or limits.memory
        confined: dict[str, Any] = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
        host_config = self._api.create_host_config(
            mounts=[docker.types.Mount("/job", str(place.directory), type="bind")],
            network_mode="bridge" if stage.enable_networking else "none",
            mem_limit=memory,
            memswap_limit=memory,  # the sum of both: no swap, or a memory bomb would take the host's disk
            nano_cpus=int((stage.cpus or limits.cpus) * 1e9),
            pids_limit=stage.pids or limits.pids,
            ulimits=[
                docker.types.Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES),
                docker.types.Ulimit(name="core", soft=0, hard=0),
            ],
            init=True,  # reaps what the stage leaves, and lets signals through
            # Output is read while it is produced; the engine's own file of it would fill the disk.
            log_config=docker.types.LogConfig(type="none"),
            **({"privileged": True} if stage.privileged else confined),
        )
        created = self._api.create_container(
            stage.image,
            # An entry point given here replaces the image's command as well.
            entrypoint=stage.entry_point[:1] if stage.entry_point else None,
            command=list(stage.entry_point[1:]) if stage.entry_point else None,
            environment=[f"{name}={value}" for name, value in stage.env.items()],
            hostname=stage.host_name,
            user=stage.user or self._default_user(),
            working_dir=stage.working_dir,
            labels={
                INSTANCE_LABEL: self._instance,
                "broadway.job-id": place.job_id,
                "broadway.attempt": str(place.attempt),
                "broadway.stage": str(place.stage),
            },
            host_config=host_config,
        )
        return str(created["Id"])

    @staticmethod
    def _default_user() -> str | None:
        """The image's own user if we are root, else us: what a stage leaves in /job must be ours to remove."""
        return None if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"

    async def _start(self, container: str, outcome: _Outcome) -> bool:
        try:
            await self._call(self._api.start, container)
        except docker.errors.APIError as error:
            message = _explanation(error)
            for pattern, exit_code in _START_FAULTS:
                if pattern.search(message):
                    outcome.exit_code, outcome.reason, outcome.message = exit_code, Reason.STAGE_FAILED, message
                    return False
            raise
        outcome.started_at = datetime.now(UTC)
        return True

    async def _wait(self, container: str, stage: Stage, stop: asyncio.Event, outcome: _Outcome) -> None:
        """Wait for the end of the container, or bring it about."""
        patience = stage.timeout + 2 * KILL_GRACE
        waiting = asyncio.ensure_future(self._call(self._api.wait, container, timeout=patience))
        try:
            await _first_of(waiting, stop, stage.timeout)
            if not waiting.done():
                if not stop.is_set():
                    outcome.reason, outcome.message = Reason.TIMEOUT, f"it ran longer than {stage.timeout:g} s"
                await self._kill(container)
                await asyncio.wait({waiting}, timeout=KILL_GRACE)
                return
            waiting.result()
        finally:
            waiting.add_done_callback(_retrieve)
        state = (await self._call(self._api.inspect_container, container))["State"]
        outcome.exit_code = int(state["ExitCode"])
        if outcome.exit_code == 0:
            return
        if state.get("OOMKilled"):
            outcome.reason = Reason.OUT_OF_MEMORY
            outcome.message = f"it wanted more than {stage.memory or self._limits.memory} bytes of memory"
        else:
            outcome.reason = Reason.STAGE_FAILED
            outcome.message = state.get("Error") or _EXIT_MESSAGES.get(outcome.exit_code)

    async def _kill(self, container: str) -> None:
        try:
            await self._call(self._api.kill, container)
        except docker.errors.APIError as error:
            if error.status_code not in (404, 409):  # gone, or ended by itself at the last moment
                raise

    @contextlib.asynccontextmanager
    async def _attached(
        self, container: str, outputs: tuple[BoundedOutput, ...]
    ) -> AsyncIterator[set[asyncio.Task[None]]]:
        """Copy the container's stdout and stderr, over one connection each so that each can be cut off by itself.

        Yields the tasks that copy. They are attached before the container is started, so nothing is missed.
        """
        streams: list[AttachedStream] = []
        copies: set[asyncio.Task[None]] = set()
        try:
            for name, output in zip(("stdout", "stderr"), outputs, strict=False):
                streams.append(await self._call(AttachedStream, self._api, container, name))
                copies.add(asyncio.create_task(self._call(streams[-1].copy, output)))
            yield copies
        finally:
            for stream in streams:
                stream.hang_up()
            if copies:
                await asyncio.wait(copies)

    async def _remove(self, container: str) -> None:
        try:
            await self._call(self._api.remove_container, container, force=True, v=True)
        except docker.errors.NotFound:
            self._unremoved.discard(container)
        except ENGINE_ERRORS as error:
            log.error("cannot remove container %s, trying again later: %s", container[:12], error)  # noqa: TRY400
            self._unremoved.add(container)
        else:
            self._unremoved.discard(container)

    async def _remove_forgotten(self) -> None:
        for container in tuple(self._unremoved):
            await self._remove(container)

    async def _call(self, function: Callable[..., Answer], *arguments: Any, **named: Any) -> Answer:
        call = functools.partial(function, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


async def _first_of(work: asyncio.Future[Any], stop: asyncio.Event, seconds: float | None = None) -> None:
    """Return when `work` is done, `stop` is set or that many `seconds` are over, whichever comes first."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()


def _retrieve(done: asyncio.Future[Any]) -> None:
    """Take the error of something that nobody waits for any more."""
    if not done.cancelled() and (error := done.exception()):
        log.debug("a call to the engine was abandoned and failed: %s", error)


def _explanation(error: Exception) -> str:
    """The engine's own words where there are any."""
    return str(getattr(error, "explanation", None) or error)
