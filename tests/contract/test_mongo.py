"""What the MongoDB store proves beyond the contract: that its queries read little, and that it outlives a failover."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import pymongo
import pytest
from bson import ObjectId
from pymongo import ReadPreference
from pymongo.errors import AutoReconnect

from broadway_api import lifecycle
from broadway_api.domain import FinishedJob, IdempotencyKey, Job, JobState, JobType, Reason, Result, RunState, StageLog
from broadway_api.errors import ClaimLost, StoreUnavailable
from broadway_api.events import WakeUps
from broadway_api.settling import Settler
from broadway_api.store import mongo_exchange, mongo_places, mongo_read_ahead, mongo_worker_notes, open_store
from broadway_api.store.mongo import MongoStore
from broadway_api.store.mongo_logs import SHORT
from broadway_api.store.mongo_results import Report, ending_of
from broadway_api.store.port import Store
from tests import services
from tests.contract.backends import MongoBackend
from tests.contract.conftest import MONGO
from tests.contract.scenarios import (
    LEASE,
    LEASE_OVER,
    NOW,
    BreaksOff,
    Killed,
    cancelled,
    claim_on,
    claimed,
    created,
    failure,
    jobs_of,
    later,
    new_run,
    started,
    success,
    worker,
)

Profile = list[dict[str, Any]]


@pytest.fixture(params=[*MONGO])
def backend(request: pytest.FixtureRequest) -> Iterator[MongoBackend]:
    """An empty database, of each kind."""
    url: str = request.getfixturevalue(MONGO[request.param])
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        mongo = MongoBackend(url, client)
        yield mongo
        mongo.clear()


@contextmanager
def profiled(backend: MongoBackend) -> Iterator[Profile]:
    """What the server says about each operation on jobs that is done within; filled in at the end."""
    profile: Profile = []
    backend.database.command("profile", 2)
    try:
        yield profile
    finally:
        backend.database.command("profile", 0)
        profile += backend.database["system.profile"].find({"ns": f"{backend.DATABASE}.jobs", "op": {"$ne": "insert"}})
        backend.database.drop_collection("system.profile")


def keys_examined(profile: Profile) -> int:
    """The most that any one of the operations did."""
    return max(int(operation.get("keysExamined", 0)) for operation in profile)


# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queued", [100, 6_000])
async def test_a_claim_reads_the_head_of_the_queue_alone(backend: MongoBackend, store: Store, queued: int) -> None:
    await started(store, queued)
    worker_id = await worker(store)
    await claimed(store, worker_id)  # the frontier is beyond what comes next, as it mostly is
    with profiled(backend) as profile:
        await claimed(store, worker_id, 3)

    heads = [operation for operation in profile if "sort" in operation["command"]]
    examined = ("planSummary", "keysExamined", "docsExamined")
    assert sorted(tuple(operation[of] for of in examined) for operation in heads) == [
        ("IXSCAN { state: 1, requirement: 1, priority: -1, rank: 1, _id: 1 }", 3, 3),
        ("IXSCAN { state: 1, requirement: 1, rank: 1, _id: 1 }", 3, 0),
    ]
    assert keys_examined([operation for operation in profile if operation["op"] == "update"]) <= 3 + 1


async def test_a_frontier_is_moved_once_for_many_claims(backend: MongoBackend, store: Store) -> None:
    assert mongo_places.AHEAD == 256
    await started(store, 512)
    worker_id = await worker(store)
    moved = []
    for _ in range(8):
        await claimed(store, worker_id, 64)
        (frontier,) = backend.database["frontiers"].find()
        moved.append(frontier["rank"])
    assert moved == [64 + 256 - 1] * 4 + [512] * 4


async def test_a_claim_passes_over_what_its_worker_cannot_run_without_reading_it(
    backend: MongoBackend, store: Store
) -> None:
    await started(store, 500, require="tpu", priority=1)
    for required in ("", "gpu", "arch=arm64"):
        await started(store, 20, require=required)
    worker_id = await worker(store, gpu="", arch="arm64")
    with profiled(backend) as profile:
        assert len(await store.claim_jobs(worker_id, 8, NOW, LEASE)) == 8

    heads = [operation for operation in profile if "limit" in operation["command"] and "$in" in str(operation)]
    assert [operation["keysExamined"] <= 8 + 3 for operation in heads] == [True] * 2
    assert sum(operation["docsExamined"] for operation in heads) == 8
    (distinct,) = [operation for operation in profile if "distinct" in operation["command"]]
    assert distinct["keysExamined"] <= 5


@pytest.mark.parametrize("backend", ["mongo-standalone"], indirect=True)  # the others talk among themselves
async def test_results_and_claims_that_come_at_one_time_are_two_commands(
    backend: MongoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen workers that each report a job and take the next, time and again: what they need has been read ahead."""
    monkeypatch.setattr(mongo_worker_notes, "GATHERED_FOR", 3_600)
    async with standing_still(backend) as store:
        await started(store, 16 * 8)
        workers = [await worker(store) for _ in range(16)]
        log = [StageLog(stage=0, stdout="x" * 1_000, stderr="")]

        async def next_of(worker_id: str, jobs: list[Job]) -> list[Job]:
            results = [(claim_on(job), success(log)) for job in jobs]
            answers, new = await store.exchange(
                worker_id, results, 1, NOW, LEASE, holding=[claim.job_id for claim, _ in results]
            )
            assert all(isinstance(answer, FinishedJob) for answer in answers)
            return new

        before = commands(backend)
        held: list[list[Job]] = [[] for _ in workers]
        for number in range(7):
            if number == 3:
                store._ahead.forget()
            held = await asyncio.gather(*map(next_of, workers, held))
            assert [len(jobs) for jobs in held] == [1] * 16
        done = commands(backend) - before
    # Read twice: for each half the workers and what they hold; what is required, both orders. Once: where the frontier
    # is to be.
    assert done == Counter(update=7 * 2, find=2 * (2 * 2 + 2) + 1, distinct=2, findAndModify=1)


@asynccontextmanager
async def standing_still(backend: MongoBackend) -> AsyncIterator[MongoStore]:
    """A store to which nothing that it has read grows old."""
    async with MongoStore(backend.url) as store:
        store._ahead._clock = lambda: 0.0
        yield store


def commands(backend: MongoBackend) -> Counter[str]:
    """How many commands that read or write the server has had."""
    status = backend.database.command("serverStatus")["metrics"]["commands"]
    kinds = ("find", "getMore", "insert", "update", "delete", "findAndModify", "distinct", "aggregate", "count")
    return Counter({kind: int(status[kind]["total"]) for kind in kinds})


async def test_a_result_reads_its_job_and_one_key_more(backend: MongoBackend, store: Store, peer: Store) -> None:
    await started(store, 2_000, post=True)
    (first,), (second,) = await claimed(store, await worker(store)), await claimed(store, await worker(store))
    with profiled(backend) as profile:
        await store.finish_job(claim_on(first), success(), NOW)
    assert keys_examined(profile) <= 1
    assert [operation["op"] for operation in profile] == ["update", "query"]  # the latter: is the phase over?
    with profiled(backend) as profile:
        await peer.finish_job(claim_on(second), success(), NOW)  # which did not hand it out
    assert keys_examined(profile) <= 1


async def test_a_heartbeat_that_lost_nothing_is_one_write_of_jobs(backend: MongoBackend, store: Store) -> None:
    await started(store, 3)
    jobs = await claimed(store, worker_id := await worker(store), 3)
    running = [claim_on(job) for job in (*jobs, jobs[0])]
    with profiled(backend) as profile:
        assert await store.heartbeat(worker_id, running, NOW, LEASE) == []
    assert [operation["op"] for operation in profile] == ["update"]


async def test_a_runs_progress_is_a_few_keys_however_large_it_is(backend: MongoBackend, store: Store) -> None:
    run = await started(store, 2_000, post=True)
    with profiled(backend) as profile:
        await store.run_progress(run.id)
    assert keys_examined(profile) <= 2


async def test_a_summary_reads_the_index_alone(backend: MongoBackend, store: Store) -> None:
    run = await started(store, 500)
    with profiled(backend) as profile:
        await store.run_summary(run.id)
    (counting,) = [operation for operation in profile if "aggregate" in operation["command"]]
    assert (counting["keysExamined"], counting["docsExamined"]) == (500, 0)


async def test_no_operation_reads_jobs_of_no_concern(backend: MongoBackend, store: Store) -> None:
    await created(store, 1_000)
    with profiled(backend) as profile:
        run = await started(store, 3, pre=True)
        (job,) = await claimed(store, worker_id := await worker(store))
        await store.heartbeat(worker_id, [claim_on(job)], NOW, LEASE)
        await store.heartbeat(worker_id, None, NOW, LEASE)
        await store.finish_job(claim_on(job), failure(Reason.RUNTIME_ERROR), NOW)
        await claimed(store, worker_id)
        await store.expire_leases(LEASE_OVER, LEASE)
        await claimed(store, worker_id)
        await store.deregister_worker(worker_id, NOW)
        await store.forget_workers(later(1_000))
        await store.run_progress(run.id)
        await store.run_jobs(run.id, states=[JobState.WAITING], limit=2)
        await store.roster(run.id)
        await store.finished_elsewhere(run.id, worker_id)
        await store.advance_run(run.id, leaving=RunState.PRE_PROCESSING, to=RunState.CANCELLED, now=NOW)
        await store.cancel_jobs(run.id, NOW)
        await store.queue_depth()
        await store.queue_by_course()
        await store.workers()
        await store.forget_half_created(NOW)
        await store.settle_run(run.id)
        await store.retry_jobs(run.id, [job.id], 3, leaving=RunState.CANCELLED, to=RunState.PRE_PROCESSING)
        await store.advance_run(run.id, leaving=RunState.PRE_PROCESSING, to=RunState.CANCELLED, now=NOW)
        await store.settle_run(run.id)
        await store.delete_runs(later(1), 5)

    wasteful = {
        operation["planSummary"]: operation["keysExamined"]
        for operation in profile
        if operation.get("planSummary") == "COLLSCAN" or operation.get("keysExamined", 0) > 10
    }
    assert wasteful == {}


# --- what was read ahead --------------------------------------------------------------------------------------------


async def test_what_was_read_ahead_is_handed_out_once(backend: MongoBackend, peer: Store) -> None:
    """Another process takes some of it, then all of it; what is queued besides goes to those who want more."""
    async with standing_still(backend) as store:
        run = await started(store, 40)
        first, second = await worker(store), await worker(store)
        jobs = await claimed_at_once(store, [first, second])
        jobs += await claimed(peer, third := await worker(peer), 4)
        jobs += await claimed_at_once(store, [first, second], 5)
        jobs += await peer.claim_jobs(third, 100, NOW, LEASE, holding=[job.id for job in jobs])
        assert await claimed_at_once(store, [first, second]) == []
        other = await started(store, 3)
        jobs += await claimed_at_once(store, [first, second])
        await started(peer, 1)
        jobs += await claimed_at_once(store, [first, second])
        jobs += await claimed_at_once(store, [first, second])
    assert len(jobs) == len({job.id for job in jobs}) == 44
    assert Counter(job.run_id for job in jobs).most_common(2) == [(run.id, 40), (other.id, 3)]
    stored = {job.id: await peer.job(job.id) for job in jobs}
    assert {job.id: (job.worker_id, job.attempt) for job in jobs} == {
        job.id: (job.worker_id, job.attempt) for job in stored.values()
    }


async def test_a_write_whose_answer_got_lost_is_made_again(
    backend: MongoBackend, peer: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the primary changes. What it did is found, and done once."""
    async with standing_still(backend) as store:
        run = await started(store, 8)
        workers = [await worker(store) for _ in range(3)]
        jobs = await claimed_at_once(store, workers)
        write, lost = store._exchange._jobs.bulk_write, 0

        async def losing(*arguments: Any, **named: Any) -> Any:
            nonlocal lost
            done = await write(*arguments, **named)
            lost += 1
            if lost == 1:
                raise AutoReconnect("connection closed")
            return done

        monkeypatch.setattr(store._exchange._jobs, "bulk_write", losing)
        answered = await asyncio.gather(
            *(store.exchange(job.worker_id or "", [(claim_on(job), success())], 1, NOW, LEASE) for job in jobs)
        )
    assert lost == 2
    stored = {job.id: job for job in await jobs_of(peer, run)}
    assert [stored[job.id].state for job in jobs] == [JobState.SUCCEEDED] * 3
    for before, ((answer,), (new,)) in zip(jobs, answered, strict=True):
        assert isinstance(answer, FinishedJob)
        assert not answer.repeated
        assert (stored[new.id].worker_id, stored[new.id].attempt) == (before.worker_id, 1)
    assert sum(job.state is JobState.RUNNING for job in stored.values()) == 3


async def test_a_large_result_does_not_keep_others_from_being_written(store: Store, peer: Store) -> None:
    """A statement has room for 16 MB."""
    await started(store, 40)
    jobs = await claimed(store, await worker(store), 40)
    large = Result(success=True, reason=None, results={"score": 1, "max_score": 1, "tests": ["ü" * 500_000]})
    answers = await store.finish_jobs([(claim_on(job), large) for job in jobs], NOW)
    assert [type(answer) for answer in answers] == [FinishedJob] * 40
    assert [(await peer.job(job.id)).results for job in jobs] == [large.results] * 40


async def test_who_asks_alone_gets_what_comes_first_now(
    backend: MongoBackend, peer: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_exchange, "LULL", 0.0)
    async with standing_still(backend) as store:
        await started(store, 40)
        first, second = await worker(store), await worker(store)
        await claimed_at_once(store, [first, second])
        urgent = await started(peer, 1, priority=5)
        assert [job.run_id for job in await claimed(store, first)] == [urgent.id]


async def test_who_is_alone_for_a_moment_under_load_goes_by_what_was_read(
    backend: MongoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_exchange, "LULL", 3_600)
    async with standing_still(backend) as store:
        await started(store, 40)
        first, second = await worker(store), await worker(store)
        (job, _) = await claimed_at_once(store, [first, second])
        with profiled(backend) as profile:
            _, jobs = await store.exchange(first, [(claim_on(job), success())], 1, NOW, LEASE, holding=[job.id])
        assert len(jobs) == 1
        assert {operation["op"] for operation in profile} == {"update"}


async def test_what_is_gone_by_is_renewed_before_anybody_waits_for_it(
    backend: MongoBackend, peer: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is offered that was given to somebody, or has ended, while it was read."""
    async with standing_still(backend) as store:
        ahead, now, may_go_on = store._ahead, 0.0, asyncio.Event()
        ahead._clock = lambda: now
        read = ahead._read_heads

        async def slowly(*arguments: Any) -> Any:
            heads = await read(*arguments)
            await may_go_on.wait()
            return heads

        await started(store, 400)
        workers = [await worker(store) for _ in range(3)]
        jobs = await claimed_at_once(store, workers)
        urgent = await started(peer, 2, priority=5)
        monkeypatch.setattr(ahead, "_read_heads", slowly)
        now = mongo_read_ahead.RENEWED_AFTER + 0.01
        for _ in range(2):
            jobs += await claimed_at_once(store, workers)
        await asyncio.gather(
            *(store.finish_job(claim_on(job), success(), NOW) for job in jobs if job.worker_id == workers[0])
        )
        assert urgent.id not in [job.run_id for job in jobs]
        may_go_on.set()
        while ahead._background:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
        jobs += (new := await claimed_at_once(store, workers))
        assert urgent.id in [job.run_id for job in new]
        assert ahead._contended_until < 0
    assert len(jobs) == len({job.id for job in jobs}) == 12
    stored = {job.id: await peer.job(job.id) for job in jobs}
    assert all((job.worker_id, job.attempt) == (stored[job.id].worker_id, 1) for job in jobs)


async def test_a_frontier_is_moved_under_load_before_it_is_reached(backend: MongoBackend) -> None:
    async with standing_still(backend) as store:
        await started(store, 1_000)
        workers = [await worker(store), await worker(store)]
        moved = []
        for _ in range(3):
            await claimed_at_once(store, workers, 100)
            while store._places._background:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)
            (frontier,) = backend.database["frontiers"].find()
            moved.append(frontier["rank"])
    assert moved == [200 + 255, 400 + 255, 600 + 255]


async def test_what_this_process_changes_is_not_gone_by_any_more(backend: MongoBackend) -> None:
    async with standing_still(backend) as store:
        await started(store, 40)
        first, second = await worker(store), await worker(store)
        (job, _) = await claimed_at_once(store, [first, second])
        urgent = await started(store, 1, priority=5)
        jobs = await claimed_at_once(store, [first, second])
        assert urgent.id in [one.run_id for one in jobs]
        await store.set_draining(second, True)
        assert [one.worker_id for one in await claimed_at_once(store, [first, second])] == [first]
        await store.finish_job(claim_on(job), failure(Reason.RUNTIME_ERROR), NOW)
        assert (await claimed_at_once(store, [await worker(store), second]))[0].id == job.id


async def test_nobody_is_sent_away_because_of_what_was_so_a_moment_ago(backend: MongoBackend, peer: Store) -> None:
    async with standing_still(backend) as store:
        first, second = await worker(store), await worker(store)
        assert await claimed_at_once(store, [first, second]) == []
        await started(peer, 2, require="")
        assert len(await claimed_at_once(store, [first, second])) == 2


async def test_a_job_that_was_queued_anew_meanwhile_is_read_anew(backend: MongoBackend, peer: Store) -> None:
    """It is queued at the attempt at which it was read, but may be tried more often than was read."""
    async with standing_still(backend) as store:
        run = await started(store, 8)
        first, second = await worker(store), await worker(store)
        jobs = await claimed_at_once(store, [first, second])
        left = {job.id for job in await jobs_of(peer, run)} - {job.id for job in jobs}
        await cancelled(peer, run.id)
        await peer.settle_run(run.id)
        assert await peer.retry_jobs(run.id, [*left], 7, leaving=RunState.CANCELLED, to=RunState.STUDENTS)
        await peer.open_phase(run.id, JobType.STUDENT, NOW)
        again = await claimed_at_once(store, [first, second])
        assert again == [await peer.job(job.id) for job in again]
        assert [job.attempt_limit for job in again] == [7, 7]


async def test_a_lost_answer_is_given_again_under_load_too(backend: MongoBackend, peer: Store) -> None:
    async with standing_still(backend) as store:
        run = await started(store, 40)
        first, second = await worker(store), await worker(store)
        jobs = await claimed_at_once(store, [first, second])
        again = await claimed_at_once(store, [first, second], knowing=False)
        assert {job.id for job in again} == {job.id for job in jobs}
        await cancelled(peer, run.id)
        await started(peer, 2)
        new = await claimed_at_once(store, [first, second], knowing=False)
        running = store._exchange._claims._running
        assert running.held_by(first) | running.held_by(second) == {job.id for job in new}  # the others are given up


async def test_the_last_result_ends_the_phase_whoever_brings_it(store: Store, peer: Store) -> None:
    """Results beside which jobs of their phase are handed out do not ask whether it is over; the last ones do."""
    for _ in range(3):
        run = await started(store, 60)
        over = 0

        async def drain(one: Store, worker_id: str) -> None:
            nonlocal over
            jobs = await one.claim_jobs(worker_id, 2, NOW, LEASE)
            while jobs:
                results = [(claim_on(job), success()) for job in jobs]
                holding = [job.id for job in jobs]
                answers, jobs = await one.exchange(worker_id, results, 2, NOW, LEASE, holding=holding)
                over += sum(isinstance(answer, FinishedJob) and answer.phase_over for answer in answers)

        await asyncio.gather(*[drain(one, await worker(one)) for one in (store, peer) * 4])
        assert all(job.state is JobState.SUCCEEDED for job in await jobs_of(store, run))
        assert over >= 1


async def test_what_workers_did_under_load_is_counted_in_full(
    backend: MongoBackend, peer: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gathered; whoever asks this process is told of it, and it is written in the end."""
    monkeypatch.setattr(mongo_worker_notes, "GATHERED_FOR", 3_600)
    monkeypatch.setattr(mongo_exchange, "NOTED_AT_ONCE", 1)

    async def counts(one: Store) -> list[int]:
        return [seen.jobs_processed for seen, _ in await one.workers()]

    async with MongoStore(backend.url) as store:
        await started(store, 8)
        workers = [await worker(store), await worker(store)]
        for number in (1, 2):
            jobs = await claimed_at_once(store, workers)
            await asyncio.gather(
                *(store.exchange(job.worker_id or "", [(claim_on(job), success())], 1, NOW, LEASE) for job in jobs)
            )
            if number == 1:
                assert await counts(peer) == [0, 0]
                assert await counts(store) == await counts(peer) == [1, 1]
                await store.deregister_worker(workers[0], NOW)
                workers[0] = await worker(store)
    assert sorted(await counts(peer)) == [1, 2]


async def test_of_few_results_it_is_counted_who_ended_them_before_they_are_answered(
    backend: MongoBackend, peer: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no kill takes it away."""
    monkeypatch.setattr(mongo_worker_notes, "GATHERED_FOR", 3_600)
    async with MongoStore(backend.url) as store:
        await started(store, 8)
        jobs = await claimed_at_once(store, [await worker(store), await worker(store)], 2)
        assert len(jobs) == mongo_exchange.NOTED_AT_ONCE
        await asyncio.gather(
            *(store.exchange(job.worker_id or "", [(claim_on(job), success())], 1, NOW, LEASE) for job in jobs)
        )
        assert [one.jobs_processed for one, _ in await peer.workers()] == [2, 2]


async def test_what_workers_did_is_written_a_little_later(
    backend: MongoBackend, peer: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_worker_notes, "GATHERED_FOR", 0.01)
    monkeypatch.setattr(mongo_exchange, "NOTED_AT_ONCE", 1)
    async with MongoStore(backend.url) as store, asyncio.timeout(30):
        await started(store, 4)
        jobs = await claimed_at_once(store, [await worker(store), await worker(store)])
        await asyncio.gather(
            *(store.exchange(job.worker_id or "", [(claim_on(job), success())], 1, NOW, LEASE) for job in jobs)
        )
        while [one.jobs_processed for one, _ in await peer.workers()] != [1, 1]:  # noqa: ASYNC110  # a server knows
            await asyncio.sleep(0.01)


async def claimed_at_once(store: Store, workers: Sequence[str], n: int = 1, *, knowing: bool = True) -> list[Job]:
    """What several workers get that ask together; `knowing`: of what they hold."""
    held = {one.id: ids if knowing else [] for one, ids in await store.workers()}
    asked = (store.claim_jobs(worker_id, n, NOW, LEASE, holding=held[worker_id]) for worker_id in workers)
    return [job for jobs in await asyncio.gather(*asked) for job in jobs]


# --- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2 * SHORT])
async def test_a_refused_result_leaves_no_log_behind(
    backend: MongoBackend, store: Store, peer: Store, length: int
) -> None:
    await started(store, 40)
    jobs = await claimed(store, await worker(store), 40)
    log = [StageLog(stage=0, stdout="x" * length, stderr="")]

    outcomes = await asyncio.gather(
        *(store.finish_job(claim_on(job), success(log), LEASE_OVER) for job in jobs),
        peer.expire_leases(LEASE_OVER, LEASE),
        return_exceptions=True,
    )

    accepted = [outcome.job.id for outcome in outcomes if isinstance(outcome, FinishedJob)]
    assert sum(isinstance(outcome, ClaimLost) for outcome in outcomes) == 40 - len(accepted)
    assert [job.id for job in jobs if await peer.job_log(job.id)] == [job.id for job in jobs if job.id in accepted]
    pieces = sorted(piece["job_id"] for piece in backend.database["logs"].find())
    assert pieces == (sorted(accepted) if length > SHORT else [])


@pytest.mark.parametrize("lengths", [(1, 2), (1, 2 * SHORT), (2 * SHORT, 1), (2 * SHORT, 3 * SHORT)])
async def test_a_log_takes_the_place_of_the_attempts_before(
    backend: MongoBackend, store: Store, lengths: tuple[int, int]
) -> None:
    await started(store)
    for length in lengths:
        (job,) = await claimed(store, await worker(store))
        log = [StageLog(stage=0, stdout="x" * length, stderr="")]
        await store.finish_job(claim_on(job), failure(Reason.RUNTIME_ERROR, log), NOW)
    assert await store.job_log(job.id) == log
    pieces = [len(piece["stdout"]) for piece in backend.database["logs"].find()]
    assert pieces == [length for length in lengths[1:] if length > SHORT]


async def test_a_run_that_lost_the_race_for_its_key_leaves_no_job_behind(
    backend: MongoBackend, store: Store, peer: Store
) -> None:
    attempts = [new_run(3) for _ in range(8)]
    key = IdempotencyKey(key="assignment-1", fingerprint="a")

    ids = await asyncio.gather(
        *((store, peer)[n % 2].create_run(run, jobs, idempotency=key) for n, (run, jobs) in enumerate(attempts))
    )

    assert [job["run_id"] for job in backend.database["jobs"].find()] == [ids[0]] * 3


async def test_what_a_broken_off_creation_left_is_removed_when_it_is_old(
    backend: MongoBackend, store: Store, peer: Store
) -> None:
    whole, (broken, jobs) = await created(store, 3), new_run(1_500)
    with pytest.raises(Killed):
        await store.create_run(broken, BreaksOff(jobs, readable=1_000))
    made = ObjectId(broken.id).generation_time
    assert backend.database["jobs"].count_documents({}) == 1_003

    assert await store.forget_half_created(made) == 0
    forgotten = await asyncio.gather(*(one.forget_half_created(made + timedelta(hours=1)) for one in (store, peer)))

    assert sum(forgotten) == 1_000
    assert {job["run_id"] for job in backend.database["jobs"].find()} == {whole.id}


@pytest.mark.parametrize("same_worker", [True, False])
async def test_what_was_read_before_another_attempt_began_is_not_written(
    backend: MongoBackend, same_worker: bool
) -> None:
    """The instant between a result's check and its write, which no test from outside can hit at will."""
    async with MongoStore(backend.url) as store:
        await started(store)
        worker_id = await worker(store)
        (read,) = await claimed(store, worker_id)
        await store.expire_leases(LEASE_OVER, LEASE)
        (now_running,) = await claimed(store, worker_id if same_worker else await worker(store))

        assert not await store._end_attempt(read, lifecycle.after_lost_lease(read, NOW), {})
        report = Report(claim=claim_on(read), result=success(), now=NOW)
        ending = ending_of(report, read)
        assert ending is not None
        assert not await store._exchange._make([ending.change])

        assert await store.job(read.id) == now_running


async def test_a_retry_that_was_cut_off_is_finished_once(backend: MongoBackend, store: Store, peer: Store) -> None:
    """Cut off between its two writes; and by one who was so slow that the job had run again meanwhile."""
    run = await started(store, 2)
    for job in await claimed(store, await worker(store), 2):
        await store.finish_job(claim_on(job), failure(), NOW)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.FINISHED, now=NOW)
    await store.settle_run(run.id)
    chosen, other = await jobs_of(store, run)
    cut_off = {"state": RunState.STUDENTS, "settled": False, "unsettled": True, "finished_at": None}
    retry = {"retry": {"jobs": [chosen.id], "attempts": 2}, "generation": 1}
    backend.database["runs"].update_one({"_id": run.id}, {"$set": cut_off | retry, "$unset": {"openings": True}})
    stale = backend.database["runs"].find_one({"_id": run.id})

    assert await peer.unsettled_runs() == [run.id]  # the sweeper looks after it
    progress = await peer.run_progress(run.id)

    assert (progress.unopened, progress.run.state) == (True, RunState.STUDENTS)
    assert [job.state for job in await jobs_of(store, run)] == [JobState.WAITING, JobState.FAILED]
    await store.open_phase(run.id, JobType.STUDENT, NOW)
    (again,) = await claimed(store, await worker(store))
    assert (again.id, again.attempt, again.attempt_limit) == (chosen.id, 2, 3)
    await store.finish_job(claim_on(again), success(), NOW)
    async with MongoStore(backend.url) as slow:
        assert stale is not None
        await slow._finish_retry(stale)
    assert [job.state for job in await jobs_of(store, run)] == [JobState.SUCCEEDED, JobState.FAILED]
    assert (await store.job(other.id)).attempt == 1


async def test_a_phase_that_many_open_at_once_takes_its_ranks_once(
    backend: MongoBackend, store: Store, peer: Store
) -> None:
    run = await created(store, 30)
    await store.start_run(run.id, RunState.STUDENTS, NOW)

    await asyncio.gather(*(one.open_phase(run.id, JobType.STUDENT, NOW) for one in (store, peer) * 4))

    (course,) = backend.database["courses"].find()
    assert course["last_rank"] == 30
    ranks = [job["rank"] for job in backend.database["jobs"].find().sort("seq")]
    assert ranks == list(range(1, 31))


async def test_a_retry_that_begins_while_what_was_left_is_cancelled_loses_no_job(
    backend: MongoBackend, peer: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins between the two writes of a sweeper that read the run as ended."""
    async with MongoStore(backend.url) as store:
        run = await started(store, 2, post=True)
        await cancelled(store, run.id)
        await store.settle_run(run.id)
        ids = [job.id for job in await jobs_of(store, run)]
        cancel = store._jobs.update_many

        async def retry_then_cancel(*arguments: Any, **named: Any) -> Any:
            assert await peer.retry_jobs(run.id, ids, 3, leaving=RunState.CANCELLED, to=RunState.STUDENTS)
            await peer.open_phase(run.id, JobType.STUDENT, NOW)
            return await cancel(*arguments, **named)

        monkeypatch.setattr(store._jobs, "update_many", retry_then_cancel)
        assert await store.cancel_jobs(run.id, NOW) == 0
    assert [job.state for job in await jobs_of(peer, run)] == [JobState.QUEUED, JobState.QUEUED, JobState.WAITING]
    assert await peer.queue_positions(ids) == positions_in(backend, ids)


@pytest.mark.parametrize("queued", [0, 4, 10])
async def test_an_opening_that_was_cut_off_is_finished_with_the_ranks_it_began_with(
    backend: MongoBackend, store: Store, peer: Store, queued: int
) -> None:
    """Cut off before its first job, between two, and after the last, before it was noted that it was."""
    other, run = await started(store, 10, course="other"), await started(store, 10)
    jobs = [job.id for job in await jobs_of(store, run)]
    ranks = {job["_id"]: job["rank"] for job in backend.database["jobs"].find({"run_id": run.id})}
    backend.database["runs"].update_one({"_id": run.id}, {"$set": {"openings.student.complete": False}})
    undone = {"$set": {"state": "waiting"}, "$unset": {"rank": True}}
    backend.database["jobs"].update_many({"_id": {"$in": jobs[queued:]}}, undone)
    assert await peer.queue_positions(jobs) == positions_in(backend, jobs)
    (last,) = {job.id for job in await jobs_of(store, other) if job.seq == 10}
    assert await peer.queue_positions([last]) == positions_in(backend, [last])

    await Settler(peer, WakeUps(), lambda: NOW).settle(run.id)

    assert {job["_id"]: job["rank"] for job in backend.database["jobs"].find({"run_id": run.id})} == ranks
    assert await store.queue_positions(jobs) == positions_in(backend, jobs)
    kept = backend.database["runs"].find_one({"_id": run.id})
    assert kept is not None
    assert kept["openings"]["student"]["complete"]


def positions_in(backend: MongoBackend, job_ids: Sequence[str]) -> dict[str, int]:
    """Those of the jobs that are queued, counted one by one."""
    return {job_id: place for place, (job_id, _) in enumerate(backend.queue()) if job_id in job_ids}


async def test_a_url_without_a_database_means_broadway(request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue("mongo_standalone_url")
    async with open_store(url):
        pass
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        assert client["broadway"]["meta"].count_documents({"_id": "schema"}) == 1
        client.drop_database("broadway")


async def test_a_url_cannot_weaken_what_an_acknowledgement_means(mongo_replica_set_url: str) -> None:
    options = "&w=0&journal=false&readConcernLevel=local&readPreference=secondary&retryWrites=false"
    url = services.with_database(mongo_replica_set_url, MongoBackend.DATABASE) + options
    async with MongoStore(url) as store:
        client = store._engine._client
        assert client.write_concern.document == {"w": "majority", "j": True}
        assert client.read_concern.document == {"level": "majority"}
        assert client.read_preference == ReadPreference.PRIMARY
        assert client.options.retry_writes


# --- failover -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["mongo-replica-set"], indirect=True)
async def test_a_change_of_primary_loses_and_doubles_nothing(backend: MongoBackend, store: Store, peer: Store) -> None:
    run = await started(store, 60)
    half_done = asyncio.Event()
    done: set[str] = set()

    async def insist(call: Any) -> Any:
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.05)

    async def work(one: Store) -> None:
        worker_id = await worker(one)
        while len(done) < 60:
            jobs: list[Job] = await insist(lambda: one.claim_jobs(worker_id, 1, NOW, LEASE))
            for job in jobs:
                claim = claim_on(job)
                await insist(lambda claim=claim: one.finish_job(claim, success(), NOW))
                done.add(job.id)
            if len(done) >= 20:
                half_done.set()

    async with asyncio.TaskGroup() as tasks, asyncio.timeout(60):
        workers = [tasks.create_task(work(one)) for one in (store, peer) * 2]
        await half_done.wait()
        # Ten seconds in which it may not be elected again: another one takes over.
        await asyncio.to_thread(backend.database.client.admin.command, "replSetStepDown", 10)
        await asyncio.gather(*workers)

    for job in await jobs_of(store, run):
        stored = await store.job(job.id)
        assert (stored.state, stored.attempt, len(stored.attempts)) == (JobState.SUCCEEDED, 1, 1)
