"""Live output from the runtimes to the API: who is sent what, secrets left out, and no job ever waits for it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broadway_grader.domain import Job
from broadway_grader.errors import ApiError, Refused, Unreachable
from broadway_grader.live_output import LIMIT, LiveOutput
from broadway_grader.masking import MASK
from broadway_grader.runner import JobRunner
from broadway_grader.runtimes.port import Runtime
from broadway_grader.workspace import WorkDirectory
from tests.grader.stages import sh, until

JOB = "697dd0a80a1b2c3d4e5f6011"
SECRET = "s3cret value of the course"

Post = Mapping[str, Any]


class Listener:
    """An API that keeps what it is sent."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self.posts: list[Post] = []
        self.error: ApiError | None = None
        self.held = asyncio.Event()
        self.held.set()

    async def output(self, worker_id: str, job_id: str, attempt: int, body: Post) -> frozenset[str]:
        assert (worker_id, job_id, attempt) == ("worker", JOB, 1)
        self.posts.append(body)
        await self.held.wait()
        if self.error is not None:
            raise self.error
        return self.names

    def text(self, stream: str = "stdout", stage: int = 0) -> str:
        """What came of a stream, by its places, with ~ for what did not."""
        found = bytearray()
        for piece in (piece for post in self.posts for piece in post.get("output", ())):
            if (piece["stage"], piece["stream"]) == (stage, stream):
                data = piece["text"].encode()
                found += b"~" * (piece["start"] - len(found))
                found[piece["start"] : piece["start"] + len(data)] = data
        return found.decode()

    def stages(self) -> dict[int, Mapping[str, Any]]:
        """The last that was said of each stage."""
        return {news["stage"]: news for post in self.posts for news in post.get("stages", ())}


@pytest.fixture
def live() -> LiveOutput:
    return LiveOutput()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here has a second."""
    monkeypatch.setattr("broadway_grader.live_output.SEND_EVERY", 0.05)
    monkeypatch.setattr("broadway_grader.live_output.ASK_EVERY", 0.2)
    monkeypatch.setattr("broadway_grader.live_output.QUESTIONS", (0.02, 0.2, 0.4, 0.8))
    monkeypatch.setattr("broadway_grader.live_output.PAUSES", (0.05,))


@pytest_asyncio.fixture
async def sending(quick: None, live: LiveOutput, listener: Listener) -> AsyncIterator[asyncio.Task[None]]:
    """It is sent for as long as the test lasts."""
    task = asyncio.create_task(live.run(listener, lambda: "worker"))
    yield task
    assert not task.done(), "nothing that an API does ends it"
    task.cancel()
    await asyncio.wait({task})


@pytest.fixture
def runner(runtime: Runtime, tmp_path: Path, live: LiveOutput) -> JobRunner:
    directory = WorkDirectory(tmp_path)
    directory.__enter__()
    return JobRunner(runtime, directory, slots=4, live=live)


def job(*scripts: str, **options: Any) -> Job:
    return Job(job_id=JOB, attempt=1, stages=[sh(script, **options) for script in scripts])


def release(path: Path) -> None:
    """Let the stages go on that wait for a file in their /job."""
    for directory in (path / "jobs").glob("*"):
        for place in (directory, *(inner for inner in directory.iterdir() if inner.is_dir())):
            (place / "go").touch()


#: How a stage waits for the test.
WAIT = "until test -e /job/go; do sleep 0.05; done; rm -f /job/go"


@pytest.mark.usefixtures("sending")
async def test_a_stage_is_told_while_it_runs(runner: JobRunner, listener: Listener, tmp_path: Path) -> None:
    listener.names = frozenset({"me"})
    script = f"echo one; echo $KEY >&2; printf '\\342\\230'; {WAIT}; printf '\\203 two\\n'; exit 3"
    first = dataclasses.replace(sh("echo before"), logs=True)
    second = sh(script, env={"KEY": SECRET}, secrets=("KEY",))
    running = asyncio.create_task(runner.run(Job(job_id=JOB, attempt=1, stages=[first, second])))
    await until(lambda: listener.text("stderr", 1) and listener.text("stdout", 1), "the second stage's output")
    assert listener.text("stdout", 0) == "before\n"
    assert listener.text("stdout", 1) == "one\n", "half a character waits for its other half"
    assert listener.text("stderr", 1) == f"{MASK}\n"
    stages = listener.stages()
    assert stages[0] == {"stage": 0, "ended": True, "exit_code": 0, "reason": None, "truncated": []}
    assert stages[1] == {"stage": 1, "ended": False, "truncated": []}
    assert not running.done()
    release(tmp_path)
    result = await running
    assert result.stages[1].stdout.text == "one\n\u2603 two\n"
    assert SECRET not in repr(listener.posts)


@pytest.mark.usefixtures("sending")
@pytest.mark.parametrize("runtime_name", ["sandbox"], indirect=True)
async def test_what_nobody_follows_is_asked_about_a_few_times_and_never_sent(
    runner: JobRunner, listener: Listener, live: LiveOutput, tmp_path: Path
) -> None:
    running = asyncio.create_task(runner.run(job(f"echo unheard; {WAIT}")))
    await until(lambda: len(listener.posts) == 4, "four questions")
    assert all(post == {} for post in listener.posts)
    listener.names = frozenset({"me"})
    await asyncio.sleep(0.2)
    assert len(listener.posts) == 4, "from now on heartbeats tell"
    live.heard({JOB: 1}, {JOB: frozenset({"me"})})
    await until(lambda: listener.text() == "unheard\n", "what was printed before")
    live.heard({JOB: 1}, {})
    listener.names = frozenset()
    posts = len(listener.posts)
    await asyncio.sleep(0.5)
    assert len(listener.posts) <= posts + 1
    release(tmp_path)
    await running


@pytest.mark.usefixtures("sending")
@pytest.mark.parametrize("runtime_name", ["sandbox"], indirect=True)
async def test_a_newcomer_gets_the_end_of_it_again(
    runner: JobRunner, listener: Listener, live: LiveOutput, tmp_path: Path
) -> None:
    listener.names = frozenset({"one"})
    running = asyncio.create_task(runner.run(job(f"echo early; {WAIT}; echo late; {WAIT}")))
    await until(lambda: listener.text() == "early\n", "the beginning")
    listener.posts.clear()
    listener.names = frozenset({"one", "two"})  # a heartbeat, or the next answer
    await until(lambda: listener.text() == "early\n", "the same again")
    listener.posts.clear()
    release(tmp_path)
    await until(lambda: listener.text(), "what comes after")
    assert listener.text() == "~~~~~~late\n", "and not again"
    release(tmp_path)
    await running


@pytest.mark.usefixtures("sending")
@pytest.mark.parametrize("runtime_name", ["sandbox"], indirect=True)
async def test_what_did_not_arrive_is_sent_again(runner: JobRunner, listener: Listener, tmp_path: Path) -> None:
    listener.names = frozenset({"me"})
    running = asyncio.create_task(runner.run(job(f"{WAIT}; echo there; {WAIT}")))
    await until(lambda: listener.stages(), "to be followed")
    listener.error = Unreachable("away")
    release(tmp_path)
    await until(lambda: listener.text(), "a try")
    listener.posts.clear()
    listener.error = None
    await until(lambda: listener.text() == "there\n", "another")
    release(tmp_path)
    assert (await running).stages[0].stdout.text == "there\n"


@pytest.mark.usefixtures("sending")
@pytest.mark.parametrize("runtime_name", ["sandbox"], indirect=True)
async def test_an_api_that_takes_no_output_is_left_alone(runner: JobRunner, listener: Listener, tmp_path: Path) -> None:
    listener.error = Refused(404, "there is nothing at …")
    running = asyncio.create_task(runner.run(job(f"echo x; {WAIT}")))
    await until(lambda: listener.posts, "the first question")
    await asyncio.sleep(1)
    assert listener.posts == [{}]
    release(tmp_path)
    await running


@pytest.mark.usefixtures("sending")
@pytest.mark.parametrize("runtime_name", ["sandbox"], indirect=True)
async def test_no_job_waits_for_an_api_that_does_not_answer(runner: JobRunner, listener: Listener) -> None:
    listener.held.clear()
    listener.names = frozenset({"me"})
    async with asyncio.timeout(60):
        result = await runner.run(job("sleep 1; seq 100000", "echo done"))
    assert result.reason is None
    assert result.stages[1].stdout.text == "done\n"


@pytest.mark.usefixtures("sending")
async def test_of_a_flood_the_last_is_sent_in_bounds(runner: JobRunner, listener: Listener, tmp_path: Path) -> None:
    """The runtimes here keep 20,000 bytes of a log; live output is of the log, and says that it was cut."""
    listener.names = frozenset({"me"})
    running = asyncio.create_task(runner.run(job(f"yes 0123456789 | head -c 5000000; {WAIT}", timeout=60)))
    await until(lambda: listener.stages().get(0, {}).get("truncated") == ["stdout"], "the limit to be told")
    release(tmp_path)
    result = await running
    assert result.stages[0].stdout.text.startswith(listener.text().strip("~"))
    sizes = [len(piece["text"]) for post in listener.posts for piece in post.get("output", ())]
    assert max(sizes) <= LIMIT
    assert sum(sizes) <= 3 * 20_000


@pytest.mark.usefixtures("sending")
async def test_a_stage_without_logs_has_no_live_output_either(
    runner: JobRunner, listener: Listener, tmp_path: Path
) -> None:
    listener.names = frozenset({"me"})
    running = asyncio.create_task(runner.run(job(f"echo private; {WAIT}", logs=False)))
    await until(lambda: 0 in listener.stages(), "the stage")
    await asyncio.sleep(0.3)
    release(tmp_path)
    await running
    assert "private" not in repr(listener.posts)


async def test_switched_off_it_knows_of_no_job(listener: Listener) -> None:
    live = LiveOutput(is_on=False)
    with live.running(job("true")) as running:
        live.heard({JOB: 1}, {JOB: frozenset({"me"})})
        assert running.followed == frozenset()
