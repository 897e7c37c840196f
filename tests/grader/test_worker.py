"""The worker against a scripted API: answers that are lost, late, odd or absent, and both kinds of stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broadway_grader import worker
from broadway_grader.client import ApiClient
from broadway_grader.errors import RetryableError, Unauthorized, Unreachable
from broadway_grader.retry import Backoff, retry
from logs import JsonFormatter
from tests.grader.fake_api import CUT, Call, FakeApi, Reply, fail, success
from tests.grader.playing import FIRST, SECOND, Grader, job_id, jobs, running, with_jobs
from tests.grader.stages import until


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty queue is asked again soon, so that the next scripted answer need not be waited for."""
    monkeypatch.setattr(worker, "POLL_INTERVAL", 0.05)


@pytest_asyncio.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi.running() as api:
        yield api


@pytest_asyncio.fixture
async def grader(api: FakeApi, tmp_path: Path) -> AsyncIterator[Grader]:
    async with ApiClient(api.url, "token", answer_timeout=5) as client:
        grader = Grader(client, tmp_path)
        yield grader
        grader.worker.stop_now()
        if grader.task is not None:
            with contextlib.suppress(Unauthorized):
                await asyncio.wait_for(grader.task, 30)


async def test_a_job_is_claimed_run_and_reported(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1))
    grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: api.of("report"), "the report")
    report = api.of("report")[0]
    assert report.path == f"grading_job/{job_id(1)}"
    assert report.headers["worker-id"] == report.headers["worker_id"] == FIRST
    assert (report.body["success"], report.body["attempt"]) == (True, 1)


async def test_as_many_jobs_are_asked_for_as_slots_are_free(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1), jobs(2))
    grader.start()
    await running(grader, 1, 2)
    assert [call.query["slots"] for call in api.of("claim")] == ["2", "1"]
    assert [call.query["holding"] for call in api.of("claim")] == ["", job_id(1)]
    asked = len(api.of("claim"))
    await until(lambda: len(api.of("heartbeat")) > 2, "time to pass")
    assert len(api.of("claim")) == asked, "a full worker asks for nothing"
    grader.runner.end(1)
    await until(lambda: len(api.of("claim")) > asked, "it to ask again")


async def test_a_result_brings_the_job_that_takes_its_slot(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1, 2))
    api.say("report", with_jobs(1, 3), with_jobs(3))
    grader.start()
    await running(grader, 1, 2)
    grader.runner.end(1)
    await running(grader, 2, 3)
    assert len(api.of("claim")) == 1, "nobody polled"
    (report,) = api.of("report")
    assert (report.query["slots"], report.query["holding"]) == ("1", f"{job_id(1)},{job_id(2)}")
    grader.runner.end(3)  # whose answer brings nothing, as that of an API of an earlier release
    await until(lambda: len(api.of("claim")) > 1, "it to poll")


async def test_a_result_and_the_next_job_wait_for_no_removal(grader: Grader, api: FakeApi) -> None:
    """But a slot whose jobs are not removed takes one more, not any number; and a stop leaves nothing behind."""
    api.say("claim", jobs(1, 2))
    api.say("report", with_jobs(1, 3), with_jobs(3, 4))
    task = grader.start()
    await running(grader, 1, 2)
    grader.runner.may_remove.clear()
    grader.runner.end(1)
    await running(grader, 2, 3)
    grader.runner.end(3)
    await until(lambda: len(api.of("report")) == 2, "the second result")
    assert ["slots" in report.query for report in api.of("report")] == [True, False]
    asked = len(api.of("claim"))
    beats = len(api.of("heartbeat"))
    await until(lambda: len(api.of("heartbeat")) >= beats + 3, "time to pass")
    assert len(api.of("claim")) == asked, "its slot is not free"
    grader.worker.stop()
    grader.runner.end(2)
    await until(lambda: len(api.of("report")) == 3, "the last result")
    assert not task.done()
    assert api.of("deregister") == []
    grader.runner.may_remove.set()
    await asyncio.wait_for(task, 20)


async def test_while_somebody_asks_for_jobs_a_result_does_not(
    grader: Grader, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.say("claim", jobs(1, 2))
    arrived: list[Call] = []
    both, answer = asyncio.Event(), api.answer

    async def when_both_are_there(call: Call) -> Reply:
        if call.method == "POST" and call.path.startswith("grading_job"):
            arrived.append(call)
            if len(arrived) == 2:
                both.set()
            await both.wait()
        return await answer(call)

    monkeypatch.setattr(api, "answer", when_both_are_there)
    grader.start()
    await running(grader, 1, 2)
    grader.runner.end(1)
    grader.runner.end(2)
    await until(lambda: len(arrived) == 2, "both reports")
    assert sorted("slots" in call.query for call in arrived) == [False, True]


async def test_a_stopping_worker_reports_and_asks_for_nothing(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1))
    task = grader.start()
    await running(grader, 1)
    grader.worker.stop()
    grader.runner.end(1)
    await asyncio.wait_for(task, 30)
    assert [call.query for call in api.of("report")] == [{}]


async def test_a_job_that_comes_with_an_answer_after_the_stop_is_handed_back(
    grader: Grader, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.say("claim", jobs(1, 2))
    api.say("report", with_jobs(1, 3))
    arrived, stopped, answer = asyncio.Event(), asyncio.Event(), api.answer

    async def after_the_stop(call: Call) -> Reply:
        if call.method == "POST" and call.path.startswith("grading_job"):
            arrived.set()
            await stopped.wait()
        return await answer(call)

    monkeypatch.setattr(api, "answer", after_the_stop)
    task = grader.start()
    await running(grader, 1, 2)
    grader.runner.end(1)
    await asyncio.wait_for(arrived.wait(), 30)
    grader.worker.stop()
    stopped.set()
    grader.runner.end(2)
    await asyncio.wait_for(task, 30)
    assert "slots" in api.of("report")[0].query
    assert not grader.runner.killed
    assert len(api.of("deregister")) == 1


async def test_an_empty_queue_is_not_asked_without_end(
    grader: Grader, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    grader.start()
    await until(lambda: len(api.of("heartbeat")) >= 6, "half a second of heartbeats")
    assert 1 <= len(api.of("claim")) <= 3


async def test_heartbeats_name_what_runs(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1, attempt=3))
    grader.start()
    await running(grader, 1)
    named = {"running": [{"job_id": job_id(1), "attempt": 3}]}
    await until(lambda: api.of("heartbeat") and api.of("heartbeat")[-1].body == named, "a heartbeat that names it")


async def test_heartbeats_go_on_whatever_the_api_answers(grader: Grader, api: FakeApi) -> None:
    api.say("heartbeat", CUT, fail(500), Reply(text="nonsense"), fail(400), success(lost="odd"), success(lost=[7]))
    grader.start()
    await until(lambda: len(api.of("heartbeat")) >= 8, "heartbeats")


async def test_a_lost_job_is_stopped_and_not_reported(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1, 2))
    grader.start()
    await running(grader, 1, 2)
    api.say("heartbeat", success(lost=[job_id(1), "f" * 24]))
    await running(grader, 2)
    assert grader.runner.killed == [(job_id(1), 1)]
    grader.runner.end(2)
    await until(lambda: api.of("report"), "the other's report")
    assert [call.path for call in api.of("report")] == [f"grading_job/{job_id(2)}"]


async def test_a_job_that_is_being_reported_is_not_stopped(grader: Grader, api: FakeApi) -> None:
    """A heartbeat may overtake the answer to the report, and then calls the finished job lost."""
    api.say("claim", jobs(1))
    api.say("report", *[fail(503)] * 1000)
    grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: api.of("report"), "the first try")
    api.say("heartbeat", success(lost=[job_id(1)]))
    beats = len(api.of("heartbeat"))
    await until(lambda: len(api.of("heartbeat")) >= beats + 3, "the heartbeat to be answered")
    api.script["report"].clear()
    tries = len(api.of("report"))
    await until(lambda: len(api.of("report")) > tries, "the report to go on")


async def test_a_job_that_comes_back_with_a_new_attempt_replaces_the_old(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1))
    grader.start()
    await running(grader, 1)
    api.say("claim", jobs(1, attempt=2))
    await until(lambda: list(grader.runner.jobs) == [(job_id(1), 2)], "the new attempt to run alone")
    assert grader.runner.killed == [(job_id(1), 1)]
    grader.runner.end(1, attempt=2)
    await until(lambda: api.of("report"), "the report")
    assert [call.body["attempt"] for call in api.of("report")] == [2]


async def test_a_job_handed_out_twice_runs_once(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1), jobs(1))
    grader.start()
    await running(grader, 1)
    await until(lambda: len(api.of("claim")) >= 3, "the second claim to be taken in")
    grader.runner.end(1)
    await until(lambda: api.of("report"), "the report")
    assert len(api.of("report")) == 1


@pytest.mark.parametrize("kind", ["claim", "heartbeat", "report"])
async def test_an_unknown_worker_registers_again_and_goes_on(grader: Grader, api: FakeApi, kind: str) -> None:
    api.say("claim", jobs(1))
    grader.start()
    await running(grader, 1)
    api.say(kind, fail(401, "register again"))
    if kind == "report":
        grader.runner.end(1)
    await until(lambda: api.registrations == 2, "it to register again")
    if kind != "report":
        assert list(grader.runner.jobs) == [(job_id(1), 1)], "what runs goes on"
    api.say("claim", jobs(2))
    await until(lambda: (job_id(2), 1) in grader.runner.jobs, "the next job")
    assert api.registrations == 2


async def test_several_calls_that_notice_at_once_register_once(grader: Grader, api: FakeApi) -> None:
    grader.start()
    await until(lambda: api.of("claim"), "it to be registered")
    await asyncio.gather(*(grader.membership.renew(FIRST) for _ in range(5)))
    assert api.registrations == 2
    assert grader.membership.worker_id == SECOND


async def test_a_result_is_posted_under_the_id_that_claimed_the_job(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1))
    grader.start()
    await running(grader, 1)
    api.say("claim", fail(401))
    await until(lambda: api.registrations == 2, "it to register again")
    await until(lambda: SECOND in {call.headers["worker_id"] for call in api.of("heartbeat")}, "a heartbeat under it")
    assert api.of("heartbeat")[-1].body == {"running": []}, "the old id's job is not the new one's"
    api.say("report", fail(401), fail(401))
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) == 2, "the report, and once more")
    assert {call.headers["worker_id"] for call in api.of("report")} == {FIRST}
    api.say("claim", jobs(2))
    await until(lambda: (job_id(2), 1) in grader.runner.jobs, "the slot to be free again")
    assert len(api.of("report")) == 2, "a result of an unknown worker is set aside"
    await until(lambda: len(list(grader.spool.refused.iterdir())) == 1, "it to be set aside")


async def test_a_job_handed_out_again_under_the_new_id_is_reported_under_it(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1), fail(401), jobs(1))
    grader.start()
    await until(lambda: not api.script["claim"] and api.registrations == 2, "the second claim")
    await until(lambda: SECOND in {call.headers["worker_id"] for call in api.of("claim")}, "a claim under the new id")
    await until(
        lambda: any(call.headers["worker_id"] == SECOND and call.body["running"] for call in api.of("heartbeat")),
        "the job to be the new id's",
    )
    grader.runner.end(1)
    await until(lambda: api.of("report"), "the report")
    assert api.of("report")[0].headers["worker_id"] == SECOND
    assert grader.runner.killed == []


@pytest.mark.parametrize("fault", [CUT, fail(500), fail(503), fail(429), Reply(text="{"), Reply(status=302)])
@pytest.mark.parametrize("kind", ["register", "claim", "report"])
async def test_passing_faults_are_retried_until_they_have_passed(
    grader: Grader, api: FakeApi, kind: str, fault: Reply
) -> None:
    api.say(kind, fault, fault)
    api.say("claim", jobs(1))
    grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) == (3 if kind == "report" else 1), "the report to get through")
    bodies = [call.body for call in api.of("report")]
    assert all(body == bodies[0] for body in bodies), "the same result each time"


async def test_an_api_that_is_away_costs_no_result(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1, 2))
    grader.start()
    await running(grader, 1, 2)
    await api.stop()
    grader.runner.end(1)
    await until(lambda: len(grader.runner.jobs) == 1, "the job to end")
    await asyncio.sleep(0.3)  # some vain tries of everything
    assert list(grader.runner.jobs) == [(job_id(2), 1)], "what runs goes on"
    api.start()
    await until(lambda: api.of("report"), "the report")
    assert api.of("report")[0].path.endswith(job_id(1))


async def test_an_api_that_is_not_there_yet_is_waited_for(grader: Grader, api: FakeApi) -> None:
    await api.stop()
    grader.start()
    await asyncio.sleep(0.2)
    api.start()
    await until(lambda: api.of("claim"), "the first claim")


@pytest.mark.parametrize("status", [400, 404, 409])
async def test_a_result_that_is_refused_is_dropped(grader: Grader, api: FakeApi, status: int) -> None:
    api.say("claim", jobs(1))
    api.say("report", fail(status))
    grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: api.of("report"), "the report")
    api.say("claim", jobs(2, 3))
    await running(grader, 2, 3)
    assert len(api.of("report")) == 1


async def test_what_becomes_of_results_is_logged_with_their_ids(
    grader: Grader, api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "broadway_grader.delivery")
    api.say("claim", jobs(1, 2))
    api.say("report", fail(409))
    grader.start()
    await running(grader, 1, 2)
    grader.runner.end(1)
    grader.runner.end(2)

    def told() -> list[dict[str, Any]]:
        records = [record for record in caplog.records if record.name == "broadway_grader.delivery"]
        return [json.loads(JsonFormatter().format(record)) for record in records]

    await until(lambda: len(told()) == 2, "both to be logged")
    assert {(line["job_id"], line["attempt"]) for line in told()} == {(job_id(1), 1), (job_id(2), 1)}
    assert {line["level"] for line in told()} == {"error", "info"}


async def test_what_is_tried_again_is_logged_with_its_ids(
    grader: Grader, api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "broadway_grader.retry")
    api.say("claim", fail(503), jobs(1))
    api.say("report", fail(503))
    api.say("deregister", fail(503))
    task = grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) == 2, "the report to be repeated")
    grader.worker.stop()
    await asyncio.wait_for(task, 30)
    lines = [
        json.loads(JsonFormatter().format(record))
        for record in caplog.records
        if record.name == "broadway_grader.retry"
    ]
    ids = [{name: line[name] for name in ("worker_id", "job_id", "attempt") if name in line} for line in lines]
    claim, report, goodbye = {"worker_id": FIRST}, {"job_id": job_id(1), "attempt": 1}, {"worker_id": FIRST}
    assert ids == [claim, claim, report, report, goodbye, goodbye]
    assert [line["level"] for line in lines] == ["warning", "info"] * 3


async def test_a_job_that_was_lost_before_the_answer_that_gave_it_came_is_not_begun(
    grader: Grader, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = api.answer

    async def late(call: Call) -> Reply:
        if call.path == "heartbeat" and any(job["job_id"] == job_id(1) for job in call.body["running"]):
            return success(lost=[job_id(1)])
        reply = await answer(call)
        if call.path == "grading_job" and reply.body and "jobs" in reply.body["data"]:
            await asyncio.sleep(0.2)  # longer than the interval between heartbeats
        return reply

    monkeypatch.setattr(api, "answer", late)
    api.say("claim", jobs(1, 2))
    grader.start()
    await running(grader, 2)
    assert grader.runner.killed == [], "job 1 was begun"


async def test_a_result_that_is_too_large_gets_through_with_less_of_its_logs(grader: Grader, api: FakeApi) -> None:
    grader.runner.output = "x" * 1000
    api.say("claim", jobs(1))
    api.say("report", fail(413), fail(413))
    grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) == 3, "the third report")
    sent = [call.body["info"][0] for call in api.of("report")]
    assert [len(info["stdout"]) for info in sent] == [1000, 500, 250]
    assert [info["truncated"]["stdout"] for info in sent] == [False, True, True]


async def test_a_connection_that_always_breaks_on_a_result_is_taken_for_too_large(grader: Grader, api: FakeApi) -> None:
    grader.runner.output = "x" * 100_000
    api.say("claim", jobs(1))
    api.say("report", CUT, CUT, CUT)
    grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) == 4, "the fourth report")
    assert len(api.of("report")[3].body["info"][0]["stdout"]) == 50_000


async def test_no_broken_connection_costs_a_small_result_its_logs(grader: Grader, api: FakeApi) -> None:
    grader.runner.output = "x" * 1000
    api.say("claim", jobs(1))
    api.say("report", *[CUT] * 7)
    grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) == 8, "the eighth report")
    assert api.of("report")[7].body["info"][0]["stdout"] == "x" * 1000


async def test_a_result_too_large_even_without_logs_does_not_block_its_slot(grader: Grader, api: FakeApi) -> None:
    grader.runner.output = "xyz"
    api.say("claim", jobs(1))
    api.say("report", *[fail(413)] * 10)
    grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) >= 3, "the reports")
    api.say("claim", jobs(2, 3))
    await running(grader, 2, 3)
    assert len(api.of("report")) == 3, "3, 1 and 0 characters"


async def test_a_job_that_cannot_be_run_is_reported_with_its_fault(grader: Grader, api: FakeApi) -> None:
    bad = {"job_id": job_id(1), "attempt": 4, "stages": [{"image": "i", "entry_point": "not a list"}]}
    api.say("claim", success(jobs=[bad]))
    grader.start()
    await until(lambda: api.of("report"), "the report")
    body: dict[str, Any] = api.of("report")[0].body
    assert (body["success"], body["reason"], body["attempt"]) == (False, "runtime_error", 4)
    assert "stages[0].entry_point" in body["info"][0]["message"]


async def test_the_first_stop_lets_jobs_finish(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1))
    task = grader.start()
    await running(grader, 1)
    grader.worker.stop()
    grader.worker.stop()
    beats = len(api.of("heartbeat"))
    await until(lambda: len(api.of("heartbeat")) > beats + 2, "heartbeats to go on")
    asked = len(api.of("claim"))
    assert not task.done()
    grader.runner.end(1)
    await asyncio.wait_for(task, 30)
    assert len(api.of("claim")) == asked, "no new job"
    assert [call.method for call in api.calls[-2:]] == ["POST", "DELETE"], "reported, then deregistered"
    assert api.calls[-1].path == f"worker/{FIRST}"


async def test_the_second_stop_kills_and_hands_back(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1, 2))
    task = grader.start()
    await running(grader, 1, 2)
    grader.worker.stop()
    grader.worker.stop_now()
    grader.worker.stop_now()
    await asyncio.wait_for(task, 30)
    assert sorted(grader.runner.killed) == [(job_id(1), 1), (job_id(2), 1)]
    assert api.of("report") == []
    assert len(api.of("deregister")) == 1


async def test_a_forced_stop_ends_a_report_that_does_not_get_through(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1))
    api.say("report", *[fail(503)] * 10_000)
    task = grader.start()
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) > 2, "vain reports")
    grader.worker.stop()
    grader.worker.stop_now()
    await asyncio.wait_for(task, 30)
    assert len(api.of("deregister")) == 1


@pytest.mark.parametrize("stop", ["stop", "stop_now"])
async def test_a_stop_before_the_start_ends_it_at_once(grader: Grader, api: FakeApi, stop: str) -> None:
    getattr(grader.worker, stop)()
    await asyncio.wait_for(grader.start(), 30)
    assert api.of("claim") == []


async def test_a_stop_while_the_api_is_away_at_the_start(grader: Grader, api: FakeApi) -> None:
    await api.stop()
    task = grader.start()
    await asyncio.sleep(0.1)
    grader.worker.stop()
    await asyncio.wait_for(task, 30)


async def test_a_stop_while_the_api_is_away_ends_in_time(grader: Grader, api: FakeApi) -> None:
    task = grader.start()
    await until(lambda: api.of("claim"), "it to be under way")
    await api.stop()
    grader.worker.stop()
    await asyncio.wait_for(task, 30)


async def test_a_wrong_token_ends_it_at_once(grader: Grader, api: FakeApi) -> None:
    api.say("register", fail(401))
    with pytest.raises(Unauthorized):
        await asyncio.wait_for(grader.start(), 30)


async def test_a_token_refused_later_is_waited_out(grader: Grader, api: FakeApi) -> None:
    api.say("claim", jobs(1))
    grader.start()
    await running(grader, 1)
    api.say("register", fail(401), fail(401))
    api.say("claim", fail(401))
    await until(lambda: api.registrations == 2, "it to register again")
    assert grader.runner.killed == []


def test_the_back_off_doubles_up_to_its_longest_with_full_jitter() -> None:
    backoff = Backoff(first=0.5, longest=30, chance=lambda: 1.0)
    assert [backoff.delay(failures) for failures in (1, 2, 3, 6, 7, 8, 10_000)] == [0.5, 1, 2, 16, 30, 30, 30]
    assert Backoff(chance=lambda: 0.0).delay(5) == 0
    assert Backoff(first=1, chance=lambda: 0.5).delay(1, at_least=7) == 7.5


async def test_retrying_ends_after_the_attempts_it_was_given() -> None:
    waited: list[float] = []
    tries = 0

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def fail_always() -> None:
        nonlocal tries
        tries += 1
        raise Unreachable("away")

    backoff = Backoff(attempts=3, sleep=sleep, chance=lambda: 1.0)
    with pytest.raises(RetryableError):
        await retry(fail_always, "a call", backoff=backoff)
    assert (tries, waited) == (3, [0.5, 1.0])
