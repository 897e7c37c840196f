"""Output of running jobs, from the graders that have it to whoever follows them. Best effort: the log is the truth.

Nothing of it is stored, and nothing is sent that nobody reads: a grader is told which of its jobs are followed, in the
answers to its heartbeats and to the output that it posts. Each API process keeps the tails of the jobs that are
followed at this very process. What comes to one process and is followed at another goes through the store's broadcast,
which is also how processes know what is followed elsewhere; with an embedded store there is no other process.

A follower's name (`FollowedJob.name`) makes a grader begin again with what its job has printed last: it does so for
each name that it has not seen, so that a process that was started a moment ago gets as much as any other.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from broadway_api.domain import Claim, Job, JobState
from broadway_api.errors import ClaimLost, JobNotFound, StoreUnavailable, TooManyFollowers
from broadway_api.events import WakeUps
from broadway_api.known_runs import KnownRuns
from broadway_api.live_reader import Reader, Told
from broadway_api.live_tail import Piece, Reading, StageNews, Tail
from broadway_api.metrics import Metrics
from broadway_api.store.port import Store
from broadway_api.tenants import Principal

logger = logging.getLogger(__name__)

#: Followers of one API process at a time; each may hold some hundred kilobytes of memory.
MOST_FOLLOWERS = 500

#: Seconds between two looks at a job that is followed, and after which a silent stream shows that it lives.
LOOK_EVERY = 0.5
KEEP_ALIVE = 15.0

#: Seconds between two announcements of what is followed here, and for which one is believed elsewhere.
ANNOUNCE_EVERY = 3.0
BELIEVED = 10.0

#: Of what processes tell one another; those of another release may have other words.
_VERSION = 1


class FollowedJob:
    """A job that is followed at this process."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(4)
        self.followers = 0
        self.tail: Tail | None = None
        self.grown = asyncio.Event()  # replaced whenever it is set
        self._job: Job | None = None
        self._looked = float("-inf")

    def take(self, attempt: int, pieces: Sequence[Piece], stages: Sequence[StageNews]) -> None:
        """Output of an attempt; that of an earlier one than is known comes too late."""
        if self.tail is None or self.tail.attempt < attempt:
            self.tail = Tail(attempt)
            self._looked = float("-inf")  # the job is not what it was
        if self.tail.attempt == attempt:
            for piece in pieces:
                self.tail.add(piece)
            self.tail.stages |= {news.stage: news for news in stages}
            self.grown.set()
            self.grown = asyncio.Event()

    async def job(self, job_id: str, store: Store) -> Job:
        """The job as it was half a second ago, for all followers together. Raises JobNotFound, StoreUnavailable."""
        now = asyncio.get_running_loop().time()
        if self._job is None or now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._job = await store.job(job_id)
        return self._job


class LiveOutput:
    """Who follows which job, and what their graders send of them."""

    def __init__(
        self,
        store: Store,
        *,
        known: KnownRuns,
        wake_ups: WakeUps,
        metrics: Metrics,
        check_owner: Callable[[str, Principal], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`check_owner` raises UnknownWorker unless a worker is theirs who speak for it; `clock` is in seconds."""
        self._store = store
        self._check_owner = check_owner
        self._known = known
        self._wake_ups = wake_ups
        self._metrics = metrics
        self._clock = clock
        self._here: dict[str, FollowedJob] = {}
        self._elsewhere: dict[tuple[str, str], float] = {}  # job and name → believed until
        self._began = asyncio.Event()
        self._followers = 0

    # --- for graders --------------------------------------------------------------------------------------------

    def followers(self, job_id: str) -> list[str]:
        """The names under which a job is followed, here and at other processes."""
        here = [self._here[job_id].name] if job_id in self._here else []
        return here + self._names_elsewhere(job_id)

    def followed(self, job_ids: Iterable[str]) -> dict[str, list[str]]:
        """Those of some jobs that are followed, each with the names."""
        return {job_id: names for job_id in job_ids if (names := self.followers(job_id))}

    async def take(
        self, claim: Claim, pieces: Sequence[Piece], stages: Sequence[StageNews], *, by: Principal
    ) -> list[str]:
        """Output of a job from the worker that holds it; the names under which it is followed.

        Guard: running, held by this worker, at this attempt. Nothing is kept of what nobody follows. Raises
        JobNotFound, ClaimLost, UnknownWorker.
        """
        await self._check_owner(claim.worker_id, by)
        job = await self._store.job(claim.job_id)
        if (job.state, job.worker_id, job.attempt) != (JobState.RUNNING, claim.worker_id, claim.attempt):
            await self._store.worker(claim.worker_id)  # a worker that must register again is told that first
            raise ClaimLost(claim.job_id, claim.worker_id, claim.attempt)
        names = self.followers(job.id)
        if names:
            self._metrics.live_output_came(sum(len(piece.data) for piece in pieces))
        if job.id in self._here:
            self._here[job.id].take(job.attempt, pieces, stages)
        if self._names_elsewhere(job.id):
            await self._store.broadcast(_output_note(job, pieces, stages))
        return names

    # --- for those who follow -----------------------------------------------------------------------------------

    async def follow(
        self, job_id: str, last: Reading | None, stage: int | None, *, by: Principal
    ) -> AsyncGenerator[Told | None, None]:
        """What the job prints, from its tail on until it has ended; None now and then, when nothing happens.

        Goes on after `last`. Ends also when the server stops or cannot ask the store any more: whoever follows comes
        back. Raises JobNotFound, TooManyFollowers and StoreUnavailable before the first; nothing at all comes if the
        job has ended and `last` was its end.
        """
        job = await self._store.job(job_id)
        if not by.sees(await self._known.course(job.run_id)):
            raise JobNotFound(job_id)
        if job.state.ended and last == Reading(attempt=job.attempt, to_the_end=True):
            return
        reader, silent = Reader(last, stage), 0.0
        with self._following(job_id) as followed:
            while not self._wake_ups.closed:
                grown = followed.grown
                try:
                    job = await followed.job(job_id, self._store)
                    ended_meanwhile = await self._log(reader, job, stage)
                    told = [*ended_meanwhile, *reader.job(job), *(reader.tail(followed.tail) if followed.tail else ())]
                    told += await self._log(reader, job, stage)
                except (JobNotFound, StoreUnavailable):
                    break
                for event in told:
                    yield event
                if job.state.ended:
                    yield reader.end(job)
                    return
                silent = 0.0 if told else silent + LOOK_EVERY
                if silent >= KEEP_ALIVE:
                    yield None
                    silent = 0.0
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await grown.wait()
        yield None  # to have told nothing at all would say that there is nothing left to be told

    async def _log(self, reader: Reader, job: Job, stage: int | None) -> Sequence[Told]:
        """What is left of the log of an attempt that was reported, if that is the one that is followed."""
        if not reader.lacks_log_of(job):
            return ()
        return tuple(reader.log(job, await self._store.job_log(job.id, stage)))

    @contextmanager
    def _following(self, job_id: str) -> Iterator[FollowedJob]:
        if self._followers >= MOST_FOLLOWERS:
            raise TooManyFollowers(MOST_FOLLOWERS)
        followed = self._here.get(job_id)
        if followed is None:
            followed = self._here[job_id] = FollowedJob()
            self._began.set()
        followed.followers += 1
        self._count(+1)
        try:
            yield followed
        finally:
            self._count(-1)
            followed.followers -= 1
            if not followed.followers:
                del self._here[job_id]

    def _count(self, change: int) -> None:
        self._followers += change
        self._metrics.followers_are(self._followers)

    # --- between processes --------------------------------------------------------------------------------------

    async def announce(self) -> None:
        """For ever: tell the other processes what is followed here, at once and then again and again."""
        while True:
            self._began.clear()
            if self._here:
                names = {job_id: followed.name for job_id, followed in self._here.items()}
                await self._store.broadcast({"version": _VERSION, "followed": names})
                with suppress(TimeoutError):
                    async with asyncio.timeout(ANNOUNCE_EVERY):
                        await self._began.wait()
            else:
                await self._began.wait()

    async def listen(self) -> None:
        """For ever: hear what the other processes tell."""
        while True:
            for note in await self._store.overheard():
                self._hear(note)

    def _hear(self, note: Mapping[str, Any]) -> None:
        if note.get("version") != _VERSION:  # of another release
            return
        if "followed" in note:
            now = self._clock()
            believed = {key: until for key, until in self._elsewhere.items() if until > now}
            self._elsewhere = believed | dict.fromkeys(note["followed"].items(), now + BELIEVED)
        elif (followed := self._here.get(note.get("job", ""))) is not None:
            stages = [StageNews(**{**news, "truncated": tuple(news["truncated"])}) for news in note["stages"]]
            followed.take(note["attempt"], [Piece(**piece) for piece in note["pieces"]], stages)

    def _names_elsewhere(self, job_id: str) -> list[str]:
        now = self._clock()
        return [name for (job, name), until in self._elsewhere.items() if job == job_id and until > now]


def _output_note(job: Job, pieces: Sequence[Piece], stages: Sequence[StageNews]) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "job": job.id,
        "attempt": job.attempt,
        "pieces": [asdict(piece) for piece in pieces],
        "stages": [{**asdict(news), "truncated": list(news.truncated)} for news in stages],
    }
