"""Having a stage's image at hand: pulled when missing, once per image at a time."""

from __future__ import annotations

import asyncio
import collections
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import docker.errors
import requests

from broadway_grader.errors import GraderError

log = logging.getLogger(__name__)

#: Seconds after which a pull is given up. The engine goes on with it, so that a later try finds more of it there.
PULL_TIMEOUT = 900.0


Answer = TypeVar("Answer")


class Call(Protocol):
    """Runs a blocking function in a thread."""

    async def __call__(self, function: Callable[..., Answer], /, *arguments: Any) -> Answer: ...


class ImageUnavailable(GraderError):
    """The image is not here and could not be had; says which, and on which machine."""

    def __init__(self, image: str, problem: str) -> None:
        super().__init__(f"image {image} is not available on {socket.gethostname()}: {problem}")
        self.image = image


class Images:
    """The engine's images. `policy` is `missing`, `always` or `never`; `call` runs a call of the SDK in a thread.

    What was found once is known until there is news: `changes` gives another number then, and None if it cannot tell.
    """

    def __init__(self, api: Any, policy: str, call: Call, changes: Callable[[], Awaitable[int | None]]) -> None:
        self._api = api
        self._changes = changes
        self._known: dict[str, tuple[int, str]] = {}  # image → as of which number, its digest
        self._policy = policy
        self._call = call
        self._pulls: collections.defaultdict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)
        self._closed = threading.Event()

    async def ensure(self, image: str) -> str:
        """Have `image`; returns its registry digest, or its id if it never was in a registry.

        Raises ImageUnavailable, and the SDK's errors where the engine itself fails.
        """
        if self._policy != "always" and (digest := await self._look(image)):
            return digest
        if self._policy == "never":
            raise ImageUnavailable(image, "it is not here, and this grader pulls no images")
        async with self._pulls[image]:
            # Whoever held the lock before may have pulled it.
            if self._policy == "missing" and (digest := await self._call(self._find, image)):
                return digest
            log.info("pulling image %s", image)
            try:
                async with asyncio.timeout(PULL_TIMEOUT):
                    await self._call(self._pull, image)
            except TimeoutError:
                raise ImageUnavailable(image, f"pulling it took more than {PULL_TIMEOUT:.0f} s") from None
            if digest := await self._call(self._find, image):
                return digest
        raise ImageUnavailable(image, "it was pulled, and is not there")

    def close(self) -> None:
        """Leave pulls that are under way to the engine."""
        self._closed.set()

    async def _look(self, image: str) -> str | None:
        changes = await self._changes()  # before the look, so that what changes meanwhile is noticed
        since, known = self._known.get(image, (None, None))
        if changes is not None and since == changes:
            return known
        digest = await self._call(self._find, image)
        if digest is not None and changes is not None:
            self._known[image] = (changes, digest)
        return digest

    def _find(self, image: str) -> str | None:
        try:
            found = self._api.inspect_image(image)
        except docker.errors.ImageNotFound:
            return None
        except docker.errors.APIError as error:
            if error.status_code == 400:  # no name that an image could have
                raise ImageUnavailable(image, str(error.explanation)) from error
            raise
        return str((found.get("RepoDigests") or [found["Id"]])[0])

    def _pull(self, image: str) -> None:
        try:
            for event in self._api.pull(image, stream=True, decode=True):
                if self._closed.is_set():
                    return
                # Once it has answered 200 the engine can report a failure only in the stream.
                if "error" in event:
                    raise ImageUnavailable(image, str(event["error"]))
        except docker.errors.APIError as error:
            raise ImageUnavailable(image, str(error.explanation or error)) from error
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise ImageUnavailable(image, str(error)) from error
