"""One life of a grader after another: no result is lost, and what died with one is back in the queue with the next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from broadway_grader import worker
from broadway_grader.client import ApiClient
from broadway_grader.retry import Backoff
from tests.grader.fake_api import CUT, Call, FakeApi, Reply, fail, success
from tests.grader.playing import FIRST, SECOND, Grader, job_id, jobs, running
from tests.grader.stages import until

THIRD = f"{3:024d}"
Lives = Callable[[], Grader]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty queue is asked again soon, so that the next scripted answer need not be waited for."""
    monkeypatch.setattr(worker, "POLL_INTERVAL", 0.05)


@pytest_asyncio.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi.running() as api:
        yield api


@pytest_asyncio.fixture
async def life(api: FakeApi, tmp_path: Path) -> AsyncIterator[Lives]:
    """Makes one life after another in the same directory."""
    lives: list[Grader] = []
    async with ApiClient(api.url, "token", answer_timeout=5) as client:

        def begin() -> Grader:
            lives.append(Grader(client, tmp_path))
            lives[-1].start()
            return lives[-1]

        yield begin
        for grader in lives:
            grader.worker.stop_now()
            assert grader.task is not None
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(grader.task, 30)


async def crash(grader: Grader, api: FakeApi) -> None:
    """End a life as kill -9 does, as far as the API and the disk can tell: nothing more is said or written."""
    grader.worker._say_goodbye = nothing  # type: ignore[method-assign]
    assert grader.task is not None
    for task in asyncio.all_tasks():
        if task.get_name().startswith("job "):
            task.cancel()
    grader.task.cancel()
    await asyncio.wait([grader.task])
    await api.stop()  # only now: a life that has to connect anew when it is cancelled would leave a socket open
    api.calls.clear()
    for replies in api.script.values():
        replies.clear()
    api.start()


async def nothing() -> None:
    """Says no goodbye."""


def spooled(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "spool").glob("*.json"))


def remembered(directory: Path) -> list[str]:
    return (directory / "workers").read_text().split()


def settled(api: FakeApi) -> list[tuple[str, str, str]]:
    """The reports and deregistrations: what, of whom, in order."""

    def owner(call: Call) -> str:
        return call.headers["worker_id"]

    return [
        (call.method, call.path.rpartition("/")[2], owner(call))
        for call in api.calls
        if call.path.startswith(("grading_job/", "worker/"))
    ]


async def finish(grader: Grader, api: FakeApi, *numbers: int) -> None:
    """Run jobs to their ends, with an API that does not take their results."""
    api.say("claim", jobs(*numbers))
    api.say("report", *[fail(503)] * 1000)
    await running(grader, *numbers)
    for number in numbers:
        grader.runner.end(number)
    await until(lambda: len({call.path for call in api.of("report")}) == len(numbers), "vain reports")


async def test_a_result_is_on_disk_before_it_is_sent_and_gone_once_it_is_accepted(
    life: Lives, api: FakeApi, tmp_path: Path
) -> None:
    grader = life()
    await finish(grader, api, 1)
    assert spooled(tmp_path) == [f"{job_id(1)}-1.json"]
    kept = json.loads((tmp_path / "spool" / f"{job_id(1)}-1.json").read_text())
    assert (kept["worker_id"], kept["result"]) == (FIRST, api.of("report")[0].body)
    api.script["report"].clear()
    await until(lambda: not spooled(tmp_path), "it to be forgotten")
    assert list(grader.spool.refused.iterdir()) == []


async def test_the_next_life_delivers_under_the_old_id_and_then_deregisters_it(
    life: Lives, api: FakeApi, tmp_path: Path
) -> None:
    first = life()
    await finish(first, api, 1, 2)
    body = {call.path: call.body for call in api.of("report")}
    await crash(first, api)
    assert remembered(tmp_path) == [FIRST]
    life()
    await until(lambda: remembered(tmp_path) == [SECOND], "the old life to be settled")
    assert sorted(settled(api)[:2]) == [("POST", job_id(1), FIRST), ("POST", job_id(2), FIRST)]
    assert settled(api)[2:] == [("DELETE", FIRST, FIRST)] or settled(api)[2:] == [("DELETE", FIRST, SECOND)]
    assert {call.path: call.body for call in api.of("report")} == body, "the same results"
    assert spooled(tmp_path) == []


async def test_jobs_that_died_with_a_life_are_handed_back_by_the_next(
    life: Lives, api: FakeApi, tmp_path: Path
) -> None:
    first = life()
    api.say("claim", jobs(1))
    await running(first, 1)
    await crash(first, api)
    life()
    await until(lambda: api.of("deregister"), "the old id to be deregistered")
    assert api.of("deregister")[0].path == f"worker/{FIRST}"
    assert api.of("deregister")[0].query == {"crashed": "true"}, "what kills its grader must not go round for ever"
    assert api.of("report") == []
    await until(lambda: remembered(tmp_path) == [SECOND], "it to be forgotten")


async def test_two_crashes_in_a_row_leave_everything_to_the_third_life(
    life: Lives, api: FakeApi, tmp_path: Path
) -> None:
    first = life()
    await finish(first, api, 1)
    await crash(first, api)
    api.say("report", *[fail(503)] * 1000)
    api.say("claim", jobs(2))
    second = life()
    await running(second, 2)
    await until(lambda: api.of("report"), "a vain try")
    await crash(second, api)
    assert remembered(tmp_path) == [FIRST, SECOND]
    life()
    await until(lambda: remembered(tmp_path) == [THIRD], "both to be settled")
    assert [call for call in settled(api) if call[0] == "POST"] == [("POST", job_id(1), FIRST)]
    assert {call.path for call in api.of("deregister")} == {f"worker/{FIRST}", f"worker/{SECOND}"}


async def test_new_jobs_do_not_wait_for_old_results(life: Lives, api: FakeApi, tmp_path: Path) -> None:
    first = life()
    await finish(first, api, 1, 2)
    await crash(first, api)
    api.say("report", *[fail(503)] * 1000)
    api.say("claim", jobs(3, 4))
    second = life()
    await running(second, 3, 4)
    assert spooled(tmp_path) == [f"{job_id(1)}-1.json", f"{job_id(2)}-1.json"]
    assert api.of("deregister") == [], "not before the results are through"


async def test_an_old_result_survives_an_api_that_is_away(life: Lives, api: FakeApi, tmp_path: Path) -> None:
    first = life()
    await finish(first, api, 1)
    await crash(first, api)
    api.say("report", CUT, fail(503), Reply(status=502, text="<html>"), Reply(text="nonsense"), CUT)
    api.say("deregister", CUT, fail(503))
    life()
    await until(lambda: remembered(tmp_path) == [SECOND], "the old life to be settled")
    assert len(api.of("report")) == 6
    assert spooled(tmp_path) == []


@pytest.mark.parametrize("status", [400, 401, 404, 409])
async def test_an_old_result_that_is_refused_is_set_aside(
    life: Lives, api: FakeApi, tmp_path: Path, status: int
) -> None:
    first = life()
    await finish(first, api, 1)
    await crash(first, api)
    api.say("report", fail(status), fail(status))
    api.say("deregister", fail(401))
    second = life()
    await until(lambda: FIRST not in remembered(tmp_path), "the old life to be settled")
    assert spooled(tmp_path) == []
    (kept,) = second.spool.refused.iterdir()
    assert kept.name.endswith(f"{job_id(1)}-1.json")


async def test_a_token_that_was_wrong_for_a_while_costs_no_result(life: Lives, api: FakeApi, tmp_path: Path) -> None:
    """An API that was started with another token refuses the worker in the same way as one that has forgotten it."""
    grader = life()
    api.say("claim", jobs(1))
    await running(grader, 1)
    api.say("report", fail(401))
    api.say("register", fail(401), fail(401))
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) == 2, "the result to be tried again")
    assert {call.headers["worker_id"] for call in api.of("report")} == {FIRST}
    await until(lambda: not spooled(tmp_path), "it to be accepted")
    assert list(grader.spool.refused.iterdir()) == []


@pytest.mark.parametrize("content", ["", '{"worker_id": "aa", "job_id"'])
async def test_half_of_a_result_does_not_stop_the_next_life(
    life: Lives, api: FakeApi, tmp_path: Path, content: str
) -> None:
    first = life()
    await finish(first, api, 1)
    await crash(first, api)
    (tmp_path / "spool" / f"{job_id(2)}-1.json").write_text(content)
    (tmp_path / "spool" / f"{job_id(3)}-1.json.part").write_text(content)
    second = life()
    await until(lambda: api.of("report"), "the whole one to be delivered")
    await until(lambda: not spooled(tmp_path), "the spool to be empty")
    assert len(list(second.spool.refused.iterdir())) == 2


async def test_a_disk_that_fails_costs_no_result_while_the_grader_lives(
    life: Lives, api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grader = life()
    api.say("claim", jobs(1))
    api.say("report", fail(503))
    await running(grader, 1)
    shutil.rmtree(tmp_path / "spool")
    grader.runner.end(1)
    await until(lambda: len(api.of("report")) == 2, "the result to get through")
    assert "cannot keep the result" in caplog.text
    api.say("claim", jobs(2, 3))
    await running(grader, 2, 3)


async def test_a_result_moves_with_its_job_to_a_new_id(life: Lives, api: FakeApi, tmp_path: Path) -> None:
    """On disk, too: else the next life would deliver it under an id that does not hold the job."""
    grader = life()
    await finish(grader, api, 1)
    api.say("claim", fail(401), jobs(1))
    await until(lambda: api.of("report")[-1].headers["worker_id"] == SECOND, "a report under the new id")
    assert json.loads((tmp_path / "spool" / f"{job_id(1)}-1.json").read_text())["worker_id"] == SECOND
    assert remembered(tmp_path) == [SECOND]


async def test_a_job_whose_result_was_refused_is_not_run_again(life: Lives, api: FakeApi) -> None:
    """The API may hold on to the claim until its lease ends, and hand it out again."""
    grader = life()
    api.say("claim", jobs(1))
    api.say("report", fail(400))
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: list(grader.spool.refused.iterdir()), "the result to be refused")
    asked = len(api.of("claim"))
    api.say("claim", jobs(1))
    await until(lambda: not api.script["claim"] and len(api.of("claim")) > asked + 2, "it to be handed out again")
    assert api.of("claim")[-1].query["holding"] == job_id(1), "so that the API need not hand it out"
    assert grader.runner.jobs == {}
    await until(lambda: api.of("heartbeat")[-1].body == {"running": []}, "its lease to be let go")
    api.say("claim", jobs(1, attempt=2))
    await until(lambda: (job_id(1), 2) in grader.runner.jobs, "the next attempt to run")


async def test_results_that_a_forced_stop_overtakes_are_set_aside(life: Lives, api: FakeApi, tmp_path: Path) -> None:
    """Their jobs have been handed back; delivered by the next life they would be refused."""
    grader = life()
    await finish(grader, api, 1)
    grader.worker.stop()
    grader.worker.stop_now()
    assert grader.task is not None
    await asyncio.wait_for(grader.task, 30)
    assert len(api.of("deregister")) == 1
    assert (spooled(tmp_path), remembered(tmp_path)) == ([], [])
    assert len(list(grader.spool.refused.iterdir())) == 1


async def test_a_goodbye_that_does_not_get_through_is_left_to_the_next_life(
    life: Lives, api: FakeApi, tmp_path: Path
) -> None:
    grader = life()
    await finish(grader, api, 1)
    await api.stop()
    grader.worker.stop_now()
    assert grader.task is not None
    await asyncio.wait_for(grader.task, 30)
    assert (spooled(tmp_path), remembered(tmp_path)) == ([f"{job_id(1)}-1.json"], [FIRST])
    api.script["report"].clear()
    api.calls.clear()
    api.start()
    life()
    await until(lambda: remembered(tmp_path) == [SECOND], "the next life to settle it")
    assert settled(api)[0] == ("POST", job_id(1), FIRST)


async def test_a_goodbye_whose_answer_was_lost_is_a_goodbye(life: Lives, api: FakeApi, tmp_path: Path) -> None:
    grader = life()
    await until(lambda: api.of("claim"), "it to be under way")
    api.say("deregister", CUT, fail(401))
    grader.worker.stop()
    assert grader.task is not None
    await asyncio.wait_for(grader.task, 30)
    assert len(api.of("deregister")) == 2
    assert remembered(tmp_path) == []


async def test_retry_after_is_waited_out(api: FakeApi, tmp_path: Path) -> None:
    waited: list[float] = []
    ready = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        if seconds >= 7:
            ready.set()
        await asyncio.sleep(min(seconds, 0.01))

    async with ApiClient(api.url, "token", answer_timeout=5) as client:
        grader = Grader(client, tmp_path, Backoff(first=0.01, longest=0.05, sleep=sleep))
        api.say("claim", fail(503, Retry_After="7"))
        grader.start()
        await asyncio.wait_for(ready.wait(), 30)
        grader.worker.stop_now()
        assert grader.task is not None
        await asyncio.wait_for(grader.task, 30)
    assert any(7 <= seconds <= 7.05 for seconds in waited)


@pytest.mark.parametrize("kind", ["claim", "report"])
async def test_a_proxys_refusal_is_not_the_apis(life: Lives, api: FakeApi, tmp_path: Path, kind: str) -> None:
    grader = life()
    api.say(kind, *[Reply(status=status, text="<html>a proxy</html>") for status in (400, 401, 403, 404, 409, 414)])
    api.say("claim", jobs(1))
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: not api.script["report"] and api.of("report"), "the refusals to be over")
    await until(lambda: not spooled(tmp_path), "the result to be accepted")
    assert api.registrations == 1
    assert list(grader.spool.refused.iterdir()) == []


async def test_answers_that_are_deep_or_spoilt_end_nothing(life: Lives, api: FakeApi) -> None:
    grader = life()
    texts = ["[" * 100_000, "\0", "", "null", '{"status": "success"']
    odd = [*(Reply(text=text) for text in texts), success(jobs=7, lost=7, state=7), success(jobs=[[]], lost=[[]])]
    for kind in ("claim", "heartbeat", "report"):
        api.say(kind, *odd)
    api.say("claim", jobs(1))
    await running(grader, 1)
    grader.runner.end(1)
    await until(lambda: not api.script["report"] and not api.script["heartbeat"], "all of them")
    api.say("claim", jobs(2))
    await running(grader, 2)
