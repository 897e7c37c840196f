"""The /job directories: made fresh for each job, filled with its inputs, removed whatever a stage did to them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from broadway_grader.durable import write_durably
from broadway_grader.errors import SetupError
from broadway_grader.removal import remove_tree
from broadway_grader.spool import Spool
from broadway_grader.volumes import mounts
from broadway_grader.volumes.port import Bound, Volume, Volumes
from broadway_grader.volumes.watched import WatchedVolumes
from broadway_grader.worker_ids import WorkerIds

log = logging.getLogger(__name__)

#: What a job may keep in /job if nobody says otherwise.
DEFAULT_BOUND = Bound(bytes=1024**3, files=100_000)
#: Seconds that a job waits for the removal of its /job, which is a matter of milliseconds to seconds.
REMOVAL_PATIENCE = 60
#: Volumes that may be made and removed at once.
MOST_REMOVALS = 32


class Workspace:
    """The host's side of one job's /job."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.path = volume.path  # absolute; what to mount at /job

    def write_input(self, name: str, content: bytes) -> None:
        """Place a file in /job, readable for every user of a container. Only before the first stage.

        `name` is a plain file name. Raises FileExistsError if it is taken; never follows or overwrites anything.
        """
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"{name!r} is no plain file name")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(name, flags, 0o644, dir_fd=self._volume.descriptor)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # whatever the umask
            file.write(content)

    async def overflow(self) -> str:
        """Return, with a verdict for people, when the stage that runs must be stopped for what it keeps in /job."""
        return await self._volume.overflow()

    async def overrun(self, *, failed: bool) -> str | None:
        """The verdict on a stage that has ended, and failed or not, if its use of /job is to blame."""
        return await asyncio.to_thread(lambda: self._volume.overrun(failed=failed))


class WorkDirectory:
    """A grader's own directory: the lock that keeps others out, its identity, and the jobs' directories.

    work-dir/
      lock           held with flock(2) while a grader lives, so it ends with the process, however that ends
      instance       a random id, by which containers of an earlier life are known as ours
      workers        the ids that the API may still know this grader by
      spool/         results that the API has not answered yet
      jobs/          0700, so that the host's other users cannot reach what is open to a container's user
        <job>-<…>/   0700, one job's volume: perhaps a file system of its own
          job/       0777, mounted at /job
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.jobs = self.path / "jobs"
        self.spool = Spool(self.path / "spool")
        self.worker_ids = WorkerIds(self.path / "workers")
        self.instance = ""
        self._volumes: Volumes = WatchedVolumes(DEFAULT_BOUND)
        # Threads of our own: one that a failing disk holds up must not hold up the end of the grader.
        self._threads = ThreadPoolExecutor(max_workers=MOST_REMOVALS, thread_name_prefix="workspace")
        self._removals: set[Future[None]] = set()
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
        """Give the lock back, once what is still being removed is, or seems to take for ever."""
        wait(self._removals, timeout=REMOVAL_PATIENCE)
        self._threads.shutdown(wait=False)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def bound_jobs(self, volumes: Volumes) -> None:
        """Make the jobs' directories in this way from now on."""
        self._volumes = volumes

    @contextlib.asynccontextmanager
    async def workspace(self, job_id: str) -> AsyncIterator[Workspace]:
        """A fresh /job, removed at the end. A removal that fails is logged, and tried again at next start.

        Raises OSError if none can be made.
        """
        directory = self.jobs / f"{job_id}-{uuid.uuid4().hex[:12]}"
        making = asyncio.get_running_loop().run_in_executor(self._threads, self._make, directory)
        try:
            await asyncio.wait({making})  # which goes on if we are cancelled, so that we know what to remove
            yield Workspace(making.result())
        finally:
            # Shielded: a second stop signal must not leave half of a student's files behind.
            await asyncio.shield(self._discard(making, directory))

    def _make(self, directory: Path) -> Volume:
        try:
            return self._volumes.make(directory)
        except OSError:
            self._clear(directory)
            raise

    async def _discard(self, making: asyncio.Future[Volume], directory: Path) -> None:
        await asyncio.wait({making})
        if making.exception() is not None:
            return
        removal = self._threads.submit(self._remove, making.result(), directory)
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)
        done, _ = await asyncio.wait({asyncio.wrap_future(removal)}, timeout=REMOVAL_PATIENCE)
        if not done:
            log.error("removing %s takes more than %d s, going on meanwhile", directory, REMOVAL_PATIENCE)

    @staticmethod
    def _remove(volume: Volume, directory: Path) -> None:
        try:
            volume.remove()
        except OSError as error:
            log.error("cannot remove %s, trying again when this grader starts next: %s", directory, error)  # noqa: TRY400

    @staticmethod
    def _clear(directory: Path) -> None:
        """Remove what is left of a volume, whichever way it was made in."""
        try:
            for mounted in mounts.mounted_below(directory):
                mounts.detach(mounted)
            remove_tree(directory)
        except OSError as error:
            log.error("cannot remove %s, trying again when this grader starts next: %s", directory, error)  # noqa: TRY400

    def remove_leftovers(self) -> None:
        """Remove the jobs of an earlier life. Its containers must be gone, or they would go on writing."""
        for path in self.jobs.iterdir():
            log.warning("removing what an earlier life left of a job: %s", path.name)
            self._clear(path)

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
