"""Ways to switch off one defence at a time, from outside of the code that sets it up."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import docker

from broadway_grader import sealing
from broadway_grader.runtimes import bubblewrap, output
from broadway_grader.runtimes import container as container_module
from broadway_grader.volumes import watched

Off = Callable[[], contextlib.AbstractContextManager[object]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutation:
    """One defence switched off, and the attacks that must notice."""

    defence: str
    off: Off
    attacks: tuple[str, ...]
    runtime: str = "docker"
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)  # of the grader


def container(**changes: Any) -> Off:
    """The engine is asked for containers with these settings changed, of the request or else of its host config."""

    @contextlib.contextmanager
    def off() -> Iterator[None]:
        send = docker.APIClient.create_container_from_config

        def changed(self: Any, config: dict[str, Any], *arguments: Any, **named: Any) -> Any:
            own = {name: value for name, value in changes.items() if name in config}
            host = {**config["HostConfig"], **{name: changes[name] for name in changes.keys() - own.keys()}}
            return send(self, {**config, **own, "HostConfig": host}, *arguments, **named)

        with patch.object(docker.APIClient, "create_container_from_config", changed):
            yield

    return off


def words(*removed: str, follow: int = 0, added: tuple[str, ...] = ()) -> Off:
    """bwrap is not given an option, nor the `follow` words after it; it is given others in its place."""

    @contextlib.contextmanager
    def off() -> Iterator[None]:
        real = bubblewrap.options

        def changed(*arguments: Any, **named: Any) -> bytes:
            given = real(*arguments, **named).split(b"\0")[:-1]
            for word in removed:
                at = given.index(word.encode())
                given[at : at + 1 + follow] = [each.encode() for each in added]
            return b"".join(each + b"\0" for each in given)

        with patch.object(bubblewrap, "options", changed):
            yield

    return off


def together(*offs: Off) -> Off:
    """Defences that stand in for one another are all off."""

    @contextlib.contextmanager
    def off() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for each in offs:
                stack.enter_context(each())
            yield

    return off


def limits(*removed: str) -> Off:
    """The sandbox sets other limits than these."""

    @contextlib.contextmanager
    def off() -> Iterator[None]:
        real = bubblewrap.limited

        def changed(*arguments: Any, **named: Any) -> list[str]:
            return [word for word in real(*arguments, **named) if not word.startswith(removed)]

        with patch.object(bubblewrap, "limited", changed):
            yield

    return off


@contextlib.contextmanager
def inherited_environment() -> Iterator[None]:
    """The sandbox starts with the grader's environment."""
    real: Any = subprocess.Popen

    def inheriting(*arguments: Any, env: object, **named: Any) -> Any:
        return real(*arguments, env=dict(os.environ), **named)

    with patch.object(subprocess, "Popen", inheriting):
        yield


@contextlib.contextmanager
def links_followed() -> Iterator[None]:
    """/job is removed as somebody would who has not thought of links. The attack's lead to a bait, and only there."""

    def naive(path: Path) -> None:
        for entry in path.iterdir():
            if entry.is_dir():
                naive(entry)
                if not entry.is_symlink():
                    entry.rmdir()
            if not entry.is_dir() or entry.is_symlink():
                entry.unlink(missing_ok=True)

    def remove(path: Path) -> None:
        naive(path)
        path.rmdir()

    with patch.object(watched, "remove_tree", remove):
        yield


@contextlib.contextmanager
def unbounded() -> Iterator[None]:
    """Nobody counts what is in /job."""
    with patch.object(watched.WatchedVolume, "_count", lambda _: None):
        yield


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Nobody counts what a container writes outside of /job."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    with patch.object(container_module, "watch_layer", never):
        yield


@contextlib.contextmanager
def boundless_output() -> Iterator[None]:
    """All that a stage prints is kept."""

    def keep(self: Any, chunk: bytes) -> bool:
        self._kept += chunk
        return True

    with patch.object(output.BoundedOutput, "add", keep):
        yield


@contextlib.contextmanager
def unsealed() -> Iterator[None]:
    """What stands at results.json before a trusted stage stays there."""
    with patch.object(sealing, "clear", lambda _: None):
        yield


@contextlib.contextmanager
def results_followed() -> Iterator[None]:
    """results.json is opened as any file is, but still without waiting for it."""
    with patch.object(sealing, "_FILE", os.O_RDONLY | os.O_NONBLOCK):
        yield
