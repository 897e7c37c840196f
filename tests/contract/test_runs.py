"""Runs: made whole or not at all, started once, moved on once, looked after until nothing is left to do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broadway_api import lifecycle
from broadway_api.domain import IdempotencyKey, JobState, JobType, Reason, RunConfig, RunState, Stage
from broadway_api.errors import ClaimLost, IdempotencyMismatch, RunAlreadyStarted, RunNotFound
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from tests.contract.scenarios import (
    LEASE,
    NOW,
    BreaksOff,
    Killed,
    cancelled,
    claim_on,
    claimed,
    created,
    jobs_of,
    later,
    new_run,
    running,
    started,
    state_of,
    states,
    success,
    worker,
)

KEY = IdempotencyKey(key="assignment-1", fingerprint="a")


# --- creating -------------------------------------------------------------------------------------------------------


async def test_a_created_run_can_be_read_by_everybody(store: Store, peer: Store) -> None:
    run, jobs = new_run(2, pre=True, post=True, course="cs241")

    assert await store.create_run(run, jobs) == run.id

    assert await peer.run(run.id) == run
    assert await jobs_of(peer, run) == jobs


async def test_a_run_keeps_its_whole_config(store: Store) -> None:
    stage = Stage(
        image="grade:1",
        env={"TEXT": "grüße $HOME", "BIG": 2**70, "FLOAT": 0.1, "ON": True},
        entry_point=("sh", "-c", "make"),
        enable_networking=True,
        host_name="fa26-cs241-001",
        timeout=12.5,
        memory="512m",
        cpus=0.5,
        pids=64,
        logs=False,
        user="1000:1000",
        working_dir="/job",
        privileged=True,
    )
    config = RunConfig(
        student_pipeline=(stage, Stage(image="b", memory=1024)),
        pre_processing_pipeline=(Stage(image="c"),),
        env={"b.c": "dotted", "$a": "operator", "A": -(2**64)},
    )
    run, jobs = new_run()
    await store.create_run(type(run)(id=run.id, config=config, created_at=NOW), jobs)

    read = await store.run(run.id)

    assert read.config == config
    assert list(read.config.env) == ["b.c", "$a", "A"]
    assert [type(value) for value in read.config.student_pipeline[0].env.values()] == [str, int, float, bool]


async def test_an_unknown_run_is_not_found(store: Store) -> None:
    unknown = new_id()
    with pytest.raises(RunNotFound) as caught:
        await store.run(unknown)
    assert caught.value.run_id == unknown


async def test_creating_a_run_again_changes_nothing(store: Store, peer: Store) -> None:
    """The caller of a store that failed to answer repeats the very same call."""
    run, jobs = new_run(3)
    await store.create_run(run, jobs)
    await store.start_run(run.id, RunState.STUDENTS, NOW)
    await store.open_phase(run.id, JobType.STUDENT, NOW)

    assert await peer.create_run(run, jobs) == run.id

    assert await state_of(store, run) is RunState.STUDENTS
    assert await states(store, run) == [JobState.QUEUED] * 3


async def test_a_run_whose_creation_broke_off_is_not_there(store: Store) -> None:
    run, jobs = new_run(2_500)

    with pytest.raises(Killed):
        await store.create_run(run, BreaksOff(jobs, readable=2_200))

    with pytest.raises(RunNotFound):
        await store.run(run.id)
    assert await store.runs(limit=10) == []
    assert await jobs_of(store, run) == []
    assert await store.unsettled_runs() == []
    assert await store.queue_depth() == 0
    assert await store.claim_jobs(await worker(store), 1, NOW, later(60) - NOW) == []


async def test_a_creation_that_broke_off_can_be_repeated(store: Store) -> None:
    run, jobs = new_run(2_500)
    with pytest.raises(Killed):
        await store.create_run(run, BreaksOff(jobs, readable=2_200))

    assert await store.create_run(run, jobs) == run.id

    assert sum((await store.run_summary(run.id)).counts.values()) == 2_500


# --- idempotency keys -----------------------------------------------------------------------------------------------


async def test_a_repeated_key_creates_nothing(store: Store, peer: Store) -> None:
    first = await created(store, 2, idempotency=KEY)
    again, jobs = new_run(2)

    assert await peer.create_run(again, jobs, idempotency=KEY) == first.id

    assert [run.id for run in await store.runs(limit=10)] == [first.id]
    assert await jobs_of(store, again) == []


async def test_a_key_used_for_something_else_is_refused(store: Store) -> None:
    first = await created(store, idempotency=KEY)
    other, jobs = new_run()

    with pytest.raises(IdempotencyMismatch):
        await store.create_run(other, jobs, idempotency=IdempotencyKey(key=KEY.key, fingerprint="b"))

    assert [run.id for run in await store.runs(limit=10)] == [first.id]
    assert await jobs_of(store, other) == []


async def test_a_key_belongs_to_its_course(store: Store) -> None:
    first = await created(store, course="cs241", idempotency=KEY)
    second, jobs = new_run(course="cs340")

    assert await store.create_run(second, jobs, idempotency=KEY) == second.id
    assert {run.id for run in await store.runs(limit=10)} == {first.id, second.id}


async def test_runs_without_a_key_never_meet(store: Store) -> None:
    runs = {(await created(store)).id for _ in range(3)}
    assert {run.id for run in await store.runs(limit=10)} == runs


async def test_of_many_at_once_with_one_key_one_creates(store: Store, peer: Store) -> None:
    for round_number in range(5):
        key = IdempotencyKey(key=f"round-{round_number}", fingerprint="a")
        attempts = [new_run(3) for _ in range(8)]

        ids = await asyncio.gather(
            *((store, peer)[n % 2].create_run(run, jobs, idempotency=key) for n, (run, jobs) in enumerate(attempts))
        )

        (winner,) = set(ids)
        for run, jobs in attempts:
            assert await jobs_of(store, run) == (jobs if run.id == winner else [])
        assert len(await store.runs(limit=100)) == round_number + 1


async def test_of_two_at_once_with_one_key_and_other_bodies_one_is_refused(store: Store, peer: Store) -> None:
    for round_number in range(5):
        runs = [new_run(), new_run()]

        outcomes = await asyncio.gather(
            *(
                one.create_run(run, jobs, idempotency=IdempotencyKey(key=f"{round_number}", fingerprint=run.id))
                for one, (run, jobs) in zip((store, peer), runs, strict=True)
            ),
            return_exceptions=True,
        )

        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert [type(outcome) for outcome in outcomes if outcome != winner] == [IdempotencyMismatch]
        assert [(await jobs_of(store, run) != []) for run, _ in runs] == [run.id == winner for run, _ in runs]


# --- starting -------------------------------------------------------------------------------------------------------


async def test_a_run_starts_in_its_first_phase(store: Store, peer: Store) -> None:
    run = await created(store, pre=True)

    await store.start_run(run.id, RunState.PRE_PROCESSING, later(5))

    read = await peer.run(run.id)
    assert (read.state, read.started_at, read.finished_at) == (RunState.PRE_PROCESSING, later(5), None)


async def test_a_run_starts_once(store: Store) -> None:
    run = await started(store)

    with pytest.raises(RunAlreadyStarted) as caught:
        await store.start_run(run.id, RunState.PRE_PROCESSING, later(9))

    assert (caught.value.run_id, caught.value.state) == (run.id, RunState.STUDENTS)
    assert await store.run(run.id) == run


async def test_an_unknown_run_cannot_start(store: Store) -> None:
    with pytest.raises(RunNotFound):
        await store.start_run(new_id(), RunState.STUDENTS, NOW)


async def test_of_many_starts_at_once_one_succeeds(store: Store, peer: Store) -> None:
    for _ in range(5):
        run = await created(store)

        outcomes = await asyncio.gather(
            *((store, peer)[n % 2].start_run(run.id, RunState.STUDENTS, later(n)) for n in range(8)),
            return_exceptions=True,
        )

        (winner,) = [n for n, outcome in enumerate(outcomes) if outcome is None]
        assert all(isinstance(outcome, RunAlreadyStarted) for n, outcome in enumerate(outcomes) if n != winner)
        assert (await store.run(run.id)).started_at == later(winner)


# --- moving on ------------------------------------------------------------------------------------------------------


async def test_a_run_moves_on_once(store: Store, peer: Store) -> None:
    for _ in range(5):
        run = await started(store, post=True)

        moved = await asyncio.gather(
            *(
                (store, peer)[n % 2].advance_run(
                    run.id, leaving=RunState.STUDENTS, to=RunState.POST_PROCESSING, now=NOW
                )
                for n in range(8)
            )
        )

        assert sorted(moved) == [False] * 7 + [True]
        read = await store.run(run.id)
        assert (read.state, read.finished_at) == (RunState.POST_PROCESSING, None)


async def test_a_run_that_is_elsewhere_does_not_move(store: Store) -> None:
    run = await started(store)

    assert not await store.advance_run(run.id, leaving=RunState.PRE_PROCESSING, to=RunState.STUDENTS, now=NOW)
    assert not await store.advance_run(new_id(), leaving=RunState.STUDENTS, to=RunState.FINISHED, now=NOW)

    assert await store.run(run.id) == run


@pytest.mark.parametrize("ended", [RunState.FINISHED, RunState.FAILED, RunState.CANCELLED])
async def test_an_ended_run_says_when(store: Store, ended: RunState) -> None:
    run = await started(store)

    assert await store.advance_run(run.id, leaving=RunState.STUDENTS, to=ended, now=later(7))

    read = await store.run(run.id)
    assert (read.state, read.started_at, read.finished_at) == (ended, NOW, later(7))


# --- cancelling what is left ----------------------------------------------------------------------------------------


async def test_cancelling_ends_what_waits_what_is_queued_and_what_runs(store: Store, peer: Store) -> None:
    run = await started(store, 3, post=True)
    (taken,) = await claimed(store, await worker(store))

    assert await cancelled(store, run.id, at=later(3)) == 4

    assert await states(peer, run) == [JobState.CANCELLED] * 4
    for job in await jobs_of(peer, run):
        assert (job.reason, job.finished_at, job.lease_expires_at) == (Reason.CANCELLED, later(3), None)
    assert await peer.job(taken.id) == lifecycle.after_cancel(taken, later(3))
    assert await store.queue_depth() == 0


async def test_cancelling_leaves_what_has_ended(store: Store) -> None:
    run = await started(store, 2)
    (job,) = await claimed(store, await worker(store))
    ended = (await store.finish_job(claim_on(job), success(), NOW)).job

    assert await cancelled(store, run.id, at=later(3)) == 1

    assert await store.job(job.id) == ended


async def test_a_cancelled_job_is_lost_to_its_worker(store: Store, peer: Store) -> None:
    job = await running(store)
    claim = claim_on(job)
    await cancelled(store, job.run_id, at=later(3))
    ended = await store.job(job.id)

    assert await peer.heartbeat(claim.worker_id, [claim], later(4), LEASE) == [job.id]
    assert await peer.expire_leases(later(500), LEASE) == []
    assert await peer.claim_jobs(claim.worker_id, 5, later(4), LEASE) == []
    assert [held for _, held in await peer.workers()] == [[]]
    for late in (claim, replace(claim, attempt=None)):
        with pytest.raises(ClaimLost):
            await peer.finish_job(late, success(), later(5))
    assert await peer.deregister_worker(claim.worker_id, later(6)) == []

    assert await store.job(job.id) == ended
    assert await store.job_log(job.id) == []


async def test_either_the_result_or_the_cancelling_wins(store: Store, peer: Store) -> None:
    run = await started(store, 20)
    jobs = await claimed(store, await worker(store), 20)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.CANCELLED, now=NOW)

    number, *outcomes = await asyncio.gather(
        peer.cancel_jobs(run.id, NOW),
        *(store.finish_job(claim_on(job), success(), NOW) for job in jobs),
        return_exceptions=True,
    )

    refused = [isinstance(outcome, ClaimLost) for outcome in outcomes]
    assert number == refused.count(True)
    after = [JobState.CANCELLED if lost else JobState.SUCCEEDED for lost in refused]
    assert await states(store, run) == after


async def test_cancelling_again_changes_nothing(store: Store) -> None:
    run = await started(store, 2)
    await cancelled(store, run.id, at=later(3))
    before = await jobs_of(store, run)

    assert await store.cancel_jobs(run.id, later(4)) == 0

    assert await jobs_of(store, run) == before


async def test_a_live_run_loses_no_job(store: Store) -> None:
    """However late somebody is who read that it had ended: it may be tried again since."""
    run = await started(store, 2, post=True)
    await cancelled(store, run.id)
    await store.settle_run(run.id)
    ids = [job.id for job in await jobs_of(store, run)]
    assert await store.retry_jobs(run.id, ids, 3, leaving=RunState.CANCELLED, to=RunState.STUDENTS)

    assert await store.cancel_jobs(run.id, NOW) == 0
    assert await states(store, run) == [JobState.WAITING] * 3
    await store.open_phase(run.id, JobType.STUDENT, NOW)
    assert await store.cancel_jobs(run.id, NOW) == 0
    assert await states(store, run) == [JobState.QUEUED, JobState.QUEUED, JobState.WAITING]


async def test_cancelling_leaves_other_runs_alone(store: Store) -> None:
    run, other = await started(store), await started(store)
    await cancelled(store, run.id)
    assert await states(store, other) == [JobState.QUEUED]


async def test_no_job_is_handed_out_past_its_cancelling(store: Store, peer: Store) -> None:
    run = await started(store, 20)
    worker_id = await worker(store)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.CANCELLED, now=NOW)

    number, jobs = await asyncio.gather(
        peer.cancel_jobs(run.id, NOW), store.claim_jobs(worker_id, 20, NOW, later(60) - NOW)
    )

    assert number == 20  # also those that were handed out just before
    assert len(jobs) <= 20
    assert await states(store, run) == [JobState.CANCELLED] * 20


# --- looking after --------------------------------------------------------------------------------------------------


async def test_started_runs_are_looked_after_oldest_first(store: Store, peer: Store) -> None:
    first, _, third = await started(store), await created(store), await started(store)
    assert await peer.unsettled_runs() == [first.id, third.id]


async def test_an_ended_run_is_looked_after_until_it_is_settled(store: Store, peer: Store) -> None:
    run = await started(store)
    await store.advance_run(run.id, leaving=RunState.STUDENTS, to=RunState.FINISHED, now=NOW)
    assert await peer.unsettled_runs() == [run.id]

    await store.settle_run(run.id)

    assert await peer.unsettled_runs() == []
    assert await state_of(store, run) is RunState.FINISHED


# --- listing --------------------------------------------------------------------------------------------------------


async def test_runs_are_listed_newest_first_page_by_page(store: Store) -> None:
    made = [(await created(store)).id for _ in range(5)]

    pages: list[list[str]] = []
    after: str | None = None
    while page := [run.id for run in await store.runs(limit=2, after=after)]:
        pages.append(page)
        after = page[-1]

    assert pages == [[made[4], made[3]], [made[2], made[1]], [made[0]]]


async def test_runs_are_listed_by_state_and_course(store: Store) -> None:
    ready = await created(store, course="cs241")
    going = await started(store, course="cs241")
    other = await started(store, course="cs340")

    async def listed(**wanted: Any) -> list[str]:
        return [run.id for run in await store.runs(limit=10, **wanted)]

    assert await listed() == [other.id, going.id, ready.id]
    assert await listed(course="cs241") == [going.id, ready.id]
    assert await listed(state=RunState.STUDENTS) == [other.id, going.id]
    assert await listed(state=RunState.STUDENTS, course="cs241") == [going.id]
    assert await listed(course="cs241", after=going.id) == [ready.id]
    assert await listed(course="nobody's") == []
