"""The /job directories: made fresh for each job, filled with its inputs, removed whatever a stage did to them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

from broadway_grader.durable import write_durably
from broadway_grader.errors import SetupError
from broadway_grader.removal import remove_tree
from broadway_grader.spool import Spool
from broadway_grader.worker_ids import WorkerIds

log = logging.getLogger(__name__)


class Workspace:
    """The host's side of one job's /job."""

    def __init__(self, path: Path) -> None:
        self.path = path  # absolute

    def write_input(self, name: str, content: bytes) -> None:
        """Place a file in /job, readable for every user of a container. Only before the first stage.

        `name` is a plain file name. Raises FileExistsError if it is taken; never follows or overwrites anything.
        """
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"{name!r} is no plain file name")
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=directory)
        finally:
            os.close(directory)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # whatever the umask
            file.write(content)


class WorkDirectory:
    """A grader's own directory: the lock that keeps others out, its identity, and the jobs' directories.

    work-dir/
      lock           held with flock(2) while a grader lives, so it ends with the process, however that ends
      instance       a random id, by which containers of an earlier life are known as ours
      workers        the ids that the API may still know this grader by
      spool/         results that the API has not answered yet
      jobs/          0700, so that the host's other users cannot reach what is open to a container's user
        <job>-<…>/   0777, mounted at /job
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.jobs = self.path / "jobs"
        self.spool = Spool(self.path / "spool")
        self.worker_ids = WorkerIds(self.path / "workers")
        self.instance = ""
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Lock the directory; SetupError if it cannot be used."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._acquire(self._lock)
            self.jobs.mkdir(mode=0o700, exist_ok=True)
            self.jobs.chmod(0o700)
            self.spool.open()
            self.instance = self._identity()
        except OSError as error:
            self.close()
            raise SetupError(f"cannot use the work directory {self.path}: {error}") from error
        except SetupError:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextlib.asynccontextmanager
    async def workspace(self, job_id: str) -> AsyncIterator[Workspace]:
        """A fresh /job directory, removed at the end. A removal that fails is logged, and tried again at next start."""
        path = await asyncio.to_thread(self._make, job_id)
        try:
            yield Workspace(path)
        finally:
            # Shielded: a second stop signal must not leave half of a student's files behind.
            await asyncio.shield(asyncio.to_thread(self._remove, path))

    def _make(self, job_id: str) -> Path:
        path = Path(tempfile.mkdtemp(prefix=f"{job_id}-", dir=self.jobs))
        # Containers run as whatever user their image names; the directory above keeps everybody else out.
        path.chmod(0o777)
        return path

    def _remove(self, path: Path) -> None:
        try:
            remove_tree(path)
        except OSError as error:
            log.error("cannot remove %s, trying again when this grader starts next: %s", path, error)  # noqa: TRY400

    def remove_leftovers(self) -> None:
        """Remove the jobs of an earlier life. Its containers must be gone, or they would go on writing."""
        for path in self.jobs.iterdir():
            log.warning("removing what an earlier life left of a job: %s", path.name)
            self._remove(path)

    def _identity(self) -> str:
        file = self.path / "instance"
        with contextlib.suppress(FileNotFoundError):
            if identity := file.read_text("ascii").strip():
                return identity
        identity = uuid.uuid4().hex
        write_durably(file, f"{identity}\n".encode("ascii"))
        return identity

    def _acquire(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another grader uses the work directory {self.path}; give each one its own") from None
