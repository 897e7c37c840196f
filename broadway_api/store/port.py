"""The store, by intent: what Broadway asks of it, and what guards each change.

The store is the queue. Every method either changes one job, run or worker by compare-and-set, or is idempotent, so
that a crash between two calls is repaired by calling again. No method needs a transaction over several documents.
`now` is always an argument. Drivers' errors come out as `StoreUnavailable`, and then nothing is known about whether
the change was made: callers repeat, which is harmless.

A write has been made durable before its method returns: to disk in SQLite (WAL, `synchronous=FULL`), by a journaled
majority in MongoDB.

`tests/contract/` holds every implementation to this text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, Self

from broadway_api.domain import (
    Cause,
    Claim,
    CourseQueue,
    Delivery,
    FinishedJob,
    IdempotencyKey,
    Job,
    JobMeasure,
    JobQuery,
    JobState,
    JobType,
    LostJob,
    Result,
    Run,
    RunProgress,
    RunState,
    RunSummary,
    SealedSecret,
    StageLog,
    Worker,
)
from broadway_api.errors import ClaimLost, JobNotFound
from broadway_api.tenants import Directory


class Store(Protocol):
    """Keeps runs, jobs, workers, logs, courses and tokens. Opened and closed by `async with`."""

    async def __aenter__(self) -> Self:
        """Open: check or make the schema, make the indexes.

        Raises SchemaTooNew, StoreInUse (SQLite only), StoreUnavailable.
        """
        ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def ping(self) -> None:
        """Return if the store can answer and write, else raise StoreUnavailable."""
        ...

    # --- runs ---------------------------------------------------------------------------------------------------

    async def create_run(self, run: Run, jobs: Sequence[Job], *, idempotency: IdempotencyKey | None = None) -> str:
        """Keep a new run with all its jobs, `waiting`; return its id.

        A run that can be seen has all its jobs: jobs are written first, the run last. With a key that a run of the
        same course was created with before, nothing is written and that run's id is returned, if the fingerprint is
        the same one; otherwise raises IdempotencyMismatch. Of several calls at once with one key, one creates.
        The same call repeated, with the same run, writes what is missing and changes nothing else.
        """
        ...

    async def start_run(self, run_id: str, first: RunState, now: datetime) -> None:
        """`ready` → `first`. Raises RunNotFound, RunAlreadyStarted."""
        ...

    async def open_phase(self, run_id: str, job_type: JobType, now: datetime) -> int:
        """Queue the `waiting` jobs of a type; return how many those were. Repeating it queues the rest.

        The caller has moved the run to that phase before. Each job gets its `rank`, by which jobs are claimed
        (start-time fair queueing, see `turns`: the k-th job here of a flow gets max(virtual time, the flow's last rank)
        + k / its course's weight, or, for pre- and post-processing, + (k - 1) / that; virtual time is the least rank
        still queued of that priority, or the last one given if none is, and not behind that of the whole queue; it
        never falls), so that courses share the fleet by weight however long their queues are. The weight is the one
        that the directory has, or 1. What no worker can run that was seen of late takes no part in that.
        """
        ...

    async def advance_run(self, run_id: str, *, leaving: RunState, to: RunState, now: datetime) -> bool:
        """`leaving` → `to`; whether this call did it. An ended state also sets `finished_at`."""
        ...

    async def cancel_jobs(self, run_id: str, now: datetime) -> int:
        """End every job of an ended run that has not ended as `cancelled`; return how many those were.

        Guard: the run has ended. Of one that is retried meanwhile, the jobs that are to be tried again are left alone.
        Running ones are taken from their workers, whose heartbeats and results then find that they lost them; the
        attempt is added to `attempts` as not reported.
        """
        ...

    async def retry_jobs(
        self, run_id: str, job_ids: Sequence[str], attempts: int, *, leaving: RunState, to: RunState
    ) -> bool:
        """`leaving`, ended and settled, → `to`, live again, with those jobs `waiting`; whether this call did it.

        Of several calls one does it, and no job waits for another's sake. Jobs that have ended may each be handed out
        `attempts` times more; `attempt` and `attempts` stay, all else goes. What a crash cuts off is done by the next
        `run_progress`, of which the sweeper asks for every live run.
        """
        ...

    async def is_settled(self, run_id: str) -> bool:
        """Whether the run has ended and nothing is left to do. An unknown run is not."""
        ...

    async def delete_runs(self, finished_before: datetime, limit: int) -> list[str]:
        """Remove up to `limit` ended, settled runs with their jobs and logs; return their ids.

        Jobs and logs go first, so that what a crash leaves is found again by the same call.
        """
        ...

    async def forget_half_created(self, created_before: datetime) -> int:
        """Remove the jobs of runs whose creation was broken off before that time; return how many.

        Nobody ever sees such a run. A store that creates runs in one step has none.
        """
        ...

    async def settle_run(self, run_id: str) -> None:
        """Note that an ended run needs no more attention: `unsettled_runs` leaves it out from now on. Guard: ended."""
        ...

    async def unsettled_runs(self) -> list[str]:
        """Runs that were started and not settled, oldest first: those the sweeper looks after."""
        ...

    async def run_progress(self, run_id: str) -> RunProgress:
        """What decides the run's next step. Existence tests only, no counting. Raises RunNotFound.

        Outside a phase (ready, ended) `unopened`, `unfinished` and `failed` are False.
        """
        ...

    async def run(self, run_id: str) -> Run:
        """Raises RunNotFound."""
        ...

    async def run_summary(self, run_id: str) -> RunSummary:
        """The run with its jobs counted by state and reason. Raises RunNotFound."""
        ...

    async def runs(
        self, *, state: RunState | None = None, course: str | None = None, limit: int, after: str | None = None
    ) -> list[Run]:
        """Newest first (by id), older than the run `after`, at most `limit` (1 or more)."""
        ...

    async def run_jobs(
        self, run_id: str, *, states: Sequence[JobState] = (), limit: int, after: int | None = None
    ) -> list[Job]:
        """Jobs of the run in the given states (none given: all) with `seq` over `after`, in order of `seq`.

        At most `limit` (1 or more); `info`, `attempts` and `results` are left empty, `score` and
        `max_score` are not. An unknown run has none.
        """
        ...

    async def roster(self, run_id: str) -> list[Mapping[str, Any]]:
        """The students' entries in roster order, as they were handed in. An unknown run has none."""
        ...

    # --- workers ------------------------------------------------------------------------------------------------

    async def register_worker(self, worker: Worker) -> None:
        """Keep a new worker. Raises WorkerNameTaken if it has a name that another one has."""
        ...

    async def heartbeat(
        self, worker_id: str, running: Sequence[Claim] | None, now: datetime, lease: timedelta
    ) -> list[str]:
        """Note that the worker was seen, renew leases to `now + lease`; return the ids of named jobs that are lost.

        `running` names the jobs to renew; None: all that the worker holds. A lease is renewed only while the job is
        running, held by this worker at this attempt, even when it is over; a named job that is not is lost. They come
        in the order in which they were named. Raises UnknownWorker.
        """
        ...

    async def deregister_worker(self, worker_id: str, now: datetime, *, crashed: bool = False) -> list[LostJob]:
        """Forget the worker's id, then queue again what it holds, in front, costing no attempt.

        Guard of each job: running and held by this worker. `attempt` stays (a late result is refused all the same),
        `attempt_limit` grows by one. `crashed`: its jobs were not handed back but died with it, which costs an
        attempt, as a lost lease does; a job that kills its worker must not go round for ever. Raises UnknownWorker.
        """
        ...

    async def worker(self, worker_id: str) -> Worker:
        """Raises UnknownWorker; so do deregistered ones."""
        ...

    async def worker_named(self, name: str) -> Worker:
        """The one worker that has this name. Raises UnknownWorker."""
        ...

    async def held_jobs(self, worker_id: str) -> list[Job]:
        """What the worker holds, in the order in which it got them. An unknown worker holds nothing."""
        ...

    async def set_draining(self, worker_id: str, draining: bool) -> None:
        """Whether the worker gets no new jobs; False also ends a quarantine. Raises UnknownWorker."""
        ...

    async def strike_worker(self, worker_id: str, now: datetime, *, limit: int, pause: timedelta) -> Worker | None:
        """Count an infrastructure fault against a worker, see `lifecycle.after_strike`; None if it is unknown.

        Guard: its strikes and its quarantine are what they were when read.
        """
        ...

    async def workers(self) -> list[tuple[Worker, list[str]]]:
        """Every registered worker with the ids of the jobs that it holds, by hostname and id."""
        ...

    async def forget_workers(self, seen_before: datetime) -> int:
        """Remove workers that were last seen before that time and hold no job; return how many."""
        ...

    # --- jobs ---------------------------------------------------------------------------------------------------

    async def claim_jobs(
        self, worker_id: str, n: int, now: datetime, lease: timedelta, *, holding: Sequence[str] = ()
    ) -> list[Job]:
        """Hand up to `n` jobs to the worker and note that it was seen, and asked. Raises UnknownWorker.

        Of a worker without a name, which asks again within a quarter of a second, that need not be noted each time.
        First those it holds already and did not name in `holding` (the answer that gave them got lost), unchanged
        but for a new lease; then queued jobs whose requirement its labels meet, the highest priority first, and of one
        priority by (rank, id), but each fourth by (rank, id) alone (see `turns`): `running`, `attempt` + 1, a lease.
        Each job goes to one caller. Of queued jobs a worker gets as many as `lifecycle.new_jobs_allowed` says. Those
        that another worker is to try first (`avoid_worker_id`, until `avoid_until`) it gets last, and only if no other
        worker was seen since `now - lease`.

        Of what other processes changed, a store may learn a quarter of a second late while calls come faster than it
        answers: that jobs were queued, or a worker drained. Nobody gets nothing, or less than he asked for, because of
        that.
        """
        ...

    async def finish_job(self, claim: Claim, result: Result, now: datetime) -> FinishedJob:
        """Accept a result, with its logs. Guard: running, held by this worker, at this attempt.

        Success → `succeeded`; a student's fault → `failed`; an infrastructure fault → `queued` again with its old
        rank while `attempt` < `attempt_limit`, else `failed`. The ended attempt is added to `attempts`. The worker's
        `jobs_processed` grows by one when the job ended; without an infrastructure fault its strikes and its
        quarantine are over; other processes may see that a quarter of a second later.

        The same claim again, after its result was accepted: nothing is changed, the job as it is now is returned.
        Raises ClaimLost (nothing was changed), JobNotFound.
        """
        ...

    async def finish_jobs(
        self, results: Sequence[tuple[Claim, Result]], now: datetime
    ) -> list[FinishedJob | ClaimLost | JobNotFound]:
        """Do what `finish_job` does for each of several results; return what it would, or the ClaimLost or JobNotFound.

        Answers come in the order of the results. One that is refused is in no other's way. Of a claim that stands there
        twice one result is accepted.
        """
        ...

    async def exchange(
        self,
        worker_id: str,
        results: Sequence[tuple[Claim, Result]],
        n: int,
        now: datetime,
        lease: timedelta,
        *,
        holding: Sequence[str] = (),
    ) -> tuple[list[FinishedJob | ClaimLost | JobNotFound], list[Job]]:
        """Do what `finish_jobs` and `claim_jobs` do, for less than both cost; in which order is left open.

        So `holding` had better name the jobs that the results are about, too. Raises UnknownWorker, and then the
        results may have been accepted or not.
        """
        ...

    async def expire_leases(self, now: datetime, lease: timedelta) -> list[LostJob]:
        """Take back jobs whose lease ran out. Guard of each: still running, same attempt, lease not after `now`.

        A lease that ends later than `now + lease` was given by a clock that has been set back since; it is cut to
        that.

        `queued` again with their old rank, that is in front, while `attempt` < `attempt_limit`; else `failed` with
        reason `worker_lost`. The attempt is added to `attempts` as not reported.
        """
        ...

    async def finished_elsewhere(self, run_id: str, worker_id: str) -> bool:
        """Whether a job of the run was ended by another worker without an infrastructure fault."""
        ...

    async def job(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        ...

    async def job_log(self, job_id: str, stage: int | None = None) -> list[StageLog]:
        """What the stages of the last reported attempt printed, or one of them. Raises JobNotFound."""
        ...

    async def queue_depth(self, limit: int | None = None) -> int:
        """How many jobs are queued; with a limit (1 or more) no more than that are counted."""
        ...

    async def queued_requirements(self, limit: int) -> Mapping[str, int]:
        """What queued jobs require, with how many those are, each counted no further than the limit (1 or more)."""
        ...

    async def queue_positions(self, job_ids: Sequence[str], *, stranded: Collection[str] = ()) -> Mapping[str, int]:
        """How many jobs stand before each of the named ones that are queued, in the urgent order; 0: it is the first.

        Jobs with a requirement in `stranded` are not counted: they wait for what no worker has.
        """
        ...

    async def queue_by_course(self) -> Mapping[str, CourseQueue]:
        """What each course that has queued jobs has in the queue."""
        ...

    # --- what people look at ------------------------------------------------------------------------------------

    async def run_counts(self, run_ids: Sequence[str]) -> Mapping[str, Mapping[JobState, int]]:
        """How many jobs of each of some runs are in each state; states without jobs are left out."""
        ...

    async def find_jobs(self, run_id: str, query: JobQuery, *, limit: int, offset: int) -> tuple[list[Job], int]:
        """A page of the run's jobs that fit the query, without what may be long, and how many fit in all.

        Jobs that are equal in what they are sorted by are in roster order, or its reverse.
        """
        ...

    async def causes(self, run_id: str, limit: int) -> list[Cause]:
        """The failed jobs of a run by reason and cause, the most frequent first. Reads an index, but for examples."""
        ...

    async def measures(self, run_id: str) -> list[JobMeasure]:
        """The measures of students' jobs that succeeded or failed, in any order."""
        ...

    # --- assignments --------------------------------------------------------------------------------------------

    async def put_assignment(self, course: str, name: str, config: Mapping[str, Any]) -> None:
        """Keep a course's configuration of an assignment, in place of the one it had."""
        ...

    async def assignment(self, course: str, name: str) -> dict[str, Any]:
        """The configuration as it was put. Raises AssignmentNotFound."""
        ...

    # --- courses and tokens -------------------------------------------------------------------------------------

    async def directory(self) -> Directory:
        """All courses and tokens."""
        ...

    async def directory_since(self, version: int) -> Directory | None:
        """All courses and tokens if they are not those of that version any more; None if they are."""
        ...

    async def change_directory(self, change: Callable[[Directory], Directory]) -> Directory:
        """Replace the directory by what `change` makes of it, and return that.

        Guard: it is still the one that `change` was given; otherwise `change` is asked again, with the new one. So
        `change` is pure, and what it raises comes out, with nothing changed. Its methods say what changes there are.
        The version grows by one, unless there is no change.
        """
        ...

    # --- secrets ------------------------------------------------------------------------------------------------

    async def put_secret(self, secret: SealedSecret) -> None:
        """Keep a secret, in place of what the course had under that name."""
        ...

    async def secret_names(self, course: str) -> Mapping[str, datetime]:
        """The names of the course's secrets, in order, and when each was last put."""
        ...

    async def secrets(self, course: str, names: Collection[str]) -> list[SealedSecret]:
        """Those of the named secrets that the course has, by name."""
        ...

    async def any_secret(self) -> SealedSecret | None:
        """Some secret of some course; None if there is none."""
        ...

    async def all_secrets(self) -> list[SealedSecret]:
        """Every secret, by course and name."""
        ...

    async def reseal_secret(self, secret: SealedSecret, sealed: str) -> bool:
        """Write the same value sealed anew. Guard: it is still sealed as `secret` says; whether it was."""
        ...

    async def delete_secret(self, course: str, name: str) -> None:
        """Forget a secret. Raises SecretNotFound."""
        ...

    # --- webhooks -----------------------------------------------------------------------------------------------

    async def put_delivery(self, delivery: Delivery) -> None:
        """Keep a delivery that is due at once. One whose id is there already, told or not, is left as it is."""
        ...

    async def take_delivery(self, now: datetime, pauses: Sequence[timedelta]) -> Delivery | None:
        """The delivery that has been due for longest, with one attempt more; None if none is due.

        It is due again after `pauses[attempts before]`, should nobody call `end_delivery` by then; after the last pause
        never again. Each attempt goes to one caller. Guard: its attempts are what they were when read.
        """
        ...

    async def end_delivery(self, delivery_id: str, now: datetime) -> None:
        """Note that it was heard: it is never due again."""
        ...

    async def note_delivery_fault(self, delivery_id: str, fault: str) -> None:
        """Note why an attempt was not heard, in place of what was noted before; for people."""
        ...

    async def run_deliveries(self, run_id: str) -> list[Delivery]:
        """What there is to tell of a run, heard or not, the oldest first."""
        ...

    async def forget_deliveries(self, created_before: datetime) -> int:
        """Remove deliveries that were made before that time, heard or not; return how many."""
        ...

    # --- between processes --------------------------------------------------------------------------------------

    async def time(self) -> datetime:
        """The store's own clock, which all processes that use it share."""
        ...

    async def jobs_queued_elsewhere(self) -> None:
        """Return when another process may have queued jobs since the last call. A hint only; may never return."""
        ...

    async def broadcast(self, note: Mapping[str, Any]) -> None:
        """Tell the other processes something that may get lost: of JSON's types, and bytes; 1 MB at most."""
        ...

    async def overheard(self) -> list[Mapping[str, Any]]:
        """What other processes have broadcast since the last call, in its order, some of it perhaps again.

        Waits for something; may never return. One caller at a time.
        """
        ...
