"""The grader's side of the wire: what it sends, and what it makes of every kind of answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broadway_grader.client import ApiClient, Claims
from broadway_grader.domain import Job, JobResult, Output, Reason, Stage, StageResult
from broadway_grader.errors import (
    ApiError,
    ClaimLost,
    CutOff,
    Refused,
    RetryableError,
    ServerBusy,
    SetupError,
    TooLarge,
    Unauthorized,
    UnknownWorker,
    Unreachable,
    UnusableAnswer,
)
from tests.grader.fake_api import CUT, EMPTY, WORKER_ID, Call, FakeApi, Reply, fail, success

SAMPLES = Path(__file__).parents[1] / "samples"
JOB_ID = "697dd0a80a1b2c3d4e5f6011"
TOKEN = "a-cluster-token"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def result(stdout: str = "out") -> JobResult:
    moment = datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)
    stage = StageResult(
        started_at=moment, finished_at=moment, runtime="docker", exit_code=0, stdout=Output(text=stdout)
    )
    return JobResult(job_id=JOB_ID, attempt=2, stages=[stage])


@pytest_asyncio.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi.running() as api:
        yield api


@pytest_asyncio.fixture
async def client(api: FakeApi) -> AsyncIterator[ApiClient]:
    async with ApiClient(api.url, TOKEN, answer_timeout=5) as client:
        yield client


async def register(client: ApiClient) -> Any:
    return await client.register(hostname="grader-1", slots=2, runtime="docker", version="1.0.0", labels={"zone": "a"})


async def claim(client: ApiClient) -> Any:
    return await client.claim(WORKER_ID, slots=2, holding=["b", "a"], wait=7)


async def test_registering(client: ApiClient, api: FakeApi) -> None:
    api.say("register", Reply(body=sample("register_answer")))
    registration = await register(client)
    assert (registration.worker_id, registration.heartbeat) == (WORKER_ID, 10.0)
    assert api.calls[0].body == sample("register_request")
    assert api.calls[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_heartbeat_needs_no_connection_of_its_own(
    client: ApiClient, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.heartbeat(WORKER_ID, {})
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: time.monotonic() + 10)  # the interval between two
    await client.heartbeat(WORKER_ID, {})
    assert len({call.port for call in api.calls}) == 1


async def test_the_token_is_in_a_header_and_nowhere_else(client: ApiClient, api: FakeApi) -> None:
    await register(client)
    await claim(client)
    assert all(TOKEN not in repr((call.path, call.query, call.body)) for call in api.calls)


async def test_a_heartbeat(client: ApiClient, api: FakeApi) -> None:
    api.say("heartbeat", Reply(body=sample("heartbeat_answer")))
    request = sample("heartbeat_request")
    running = {job["job_id"]: job["attempt"] for job in request["running"]}
    assert (await client.heartbeat(WORKER_ID, running)).lost == frozenset(sample("heartbeat_answer")["data"]["lost"])
    assert api.calls[0].body == request
    assert api.calls[0].headers["worker-id"] == WORKER_ID


async def test_a_heartbeat_tells_which_jobs_are_followed(client: ApiClient, api: FakeApi) -> None:
    api.say("heartbeat", Reply(body=sample("heartbeat_answer_followed")), success(lost=[], followed="by nobody"))
    heard = await client.heartbeat(WORKER_ID, {JOB_ID: 1})
    assert {job: set(names) for job, names in heard.followed.items()} == sample_followed()
    assert (await client.heartbeat(WORKER_ID, {JOB_ID: 1})).followed == {}


def sample_followed() -> dict[str, set[str]]:
    told = sample("heartbeat_answer_followed")["data"]["followed"]
    return {job: set(names) for job, names in told.items()}


async def test_output(client: ApiClient, api: FakeApi) -> None:
    api.say("output", Reply(body=sample("output_answer")), fail(409))
    body = sample("output_request")
    sent = {"output": body["output"], "stages": body["stages"]}
    assert await client.output(WORKER_ID, JOB_ID, body["attempt"], sent) == set(
        sample("output_answer")["data"]["followed"]
    )
    assert api.calls[0].body == body
    assert api.calls[0].headers["worker-id"] == WORKER_ID
    with pytest.raises(Refused):
        await client.output(WORKER_ID, JOB_ID, 1, {})


async def test_a_heartbeat_of_an_idle_worker_says_that_nothing_runs(client: ApiClient, api: FakeApi) -> None:
    """An empty body would renew the lease of a job whose answer got lost."""
    await client.heartbeat(WORKER_ID, {})
    assert api.calls[0].body == {"running": []}


async def test_a_claim(client: ApiClient, api: FakeApi) -> None:
    api.say("claim", Reply(body=sample("claim_answer_slots")))
    claims = await claim(client)
    assert [(job.job_id, job.attempt, len(job.stages)) for job in claims.jobs] == [
        ("697dd0a80a1b2c3d4e5f6011", 1, 2),
        ("697dd0a80a1b2c3d4e5f6012", 1, 2),
    ]
    assert claims.jobs[0].stages[1].memory == 512 * 1024**2
    assert claims.jobs[0].stages[1].timeout == 12.5
    assert api.calls[0].query == {"slots": "2", "holding": "a,b"}
    assert api.calls[0].headers["prefer"] == "wait=7"


async def test_a_claim_of_post_processing_brings_how_the_students_jobs_ended(client: ApiClient, api: FakeApi) -> None:
    api.say("claim", Reply(body=sample("claim_answer_post_processing")))
    (job,) = (await client.claim("w", slots=1, holding=(), wait=0)).jobs
    assert job.student_jobs == sample("claim_answer_post_processing")["data"]["student_jobs"]


async def test_a_claim_answered_with_a_single_job(client: ApiClient, api: FakeApi) -> None:
    api.say("claim", Reply(body=sample("claim_answer_pre_processing")))
    (job,) = (await claim(client)).jobs
    assert isinstance(job, Job)
    assert job.students == sample("claim_answer_pre_processing")["data"]["students"]


async def test_an_empty_queue(client: ApiClient, api: FakeApi) -> None:
    api.say("claim", EMPTY, Reply(status=498, body=sample("queue_empty_answer")), success(jobs=[]))
    for _ in range(3):
        claims = await claim(client)
        assert (list(claims.jobs), list(claims.unusable)) == ([], [])


async def test_an_unusable_job_does_not_hide_the_good_ones(client: ApiClient, api: FakeApi) -> None:
    good = {"job_id": "1" * 24, "attempt": 1, "stages": [{"image": "i"}]}
    api.say("claim", success(jobs=[good, {"job_id": "2" * 24, "attempt": 3, "stages": []}, 7, {"stages": []}]))
    claims = await claim(client)
    assert [job.job_id for job in claims.jobs] == ["1" * 24]
    assert [(bad.job_id, bad.attempt) for bad in claims.unusable] == [("2" * 24, 3)]


async def test_a_result_that_brings_the_next_job(client: ApiClient, api: FakeApi) -> None:
    api.say("report", Reply(body=sample("result_answer_next")), Reply(body=sample("result_answer")))
    state, claims = await client.report_and_claim(WORKER_ID, result(), slots=2, holding=["b" * 24, "a" * 24])
    (expected,) = sample("result_answer_next")["data"]["jobs"]
    assert state == "succeeded"
    assert [(job.job_id, len(job.stages)) for job in claims.jobs] == [(expected["job_id"], len(expected["stages"]))]
    assert api.calls[0].query == {"slots": "2", "holding": f"{'a' * 24},{'b' * 24}"}
    state, claims = await client.report_and_claim(WORKER_ID, result(), slots=2, holding=[])
    assert (state, list(claims.jobs)) == ("succeeded", []), "as an API of an earlier release answers"


async def test_odd_jobs_do_not_cost_a_result_its_answer(client: ApiClient, api: FakeApi) -> None:
    odds: list[Any] = [7, [7], {}]
    for odd in odds:
        api.say("report", success(job_id=JOB_ID, state="failed", jobs=odd))
        state, claims = await client.report_and_claim(WORKER_ID, result(), slots=1, holding=[])
        assert (state, list(claims.jobs), list(claims.unusable)) == ("failed", [], [])


async def test_a_result(client: ApiClient, api: FakeApi) -> None:
    api.say("report", Reply(body=sample("result_answer")))
    assert await client.report(WORKER_ID, result()) == sample("result_answer")["data"]["state"]
    assert api.calls[0].path == f"grading_job/{JOB_ID}"
    assert api.calls[0].body == {
        "success": True,
        "attempt": 2,
        "reason": None,
        "info": [
            {
                "exit_code": 0,
                "reason": None,
                "started_at": "2026-01-31T09:30:00.123Z",
                "finished_at": "2026-01-31T09:30:00.123Z",
                "stdout": "out",
                "stderr": "",
                "truncated": {"stdout": False, "stderr": False},
                "dropped_bytes": {"stdout": 0, "stderr": 0},
                "runtime": "docker",
            }
        ],
    }


def test_the_info_of_a_stage_is_that_of_the_sample() -> None:
    info = sample("result_request_failed")["info"][1]
    stage = StageResult(
        started_at=datetime.fromisoformat(info["started_at"]),
        finished_at=datetime.fromisoformat(info["finished_at"]),
        runtime="docker",
        reason=Reason.TIMEOUT,
        message=info["message"],
        stdout=Output(text=info["stdout"], truncated=True, dropped_bytes=info["dropped_bytes"]["stdout"]),
        memory_peak_bytes=info["memory_peak_bytes"],
        cpu_seconds=info["cpu_seconds"],
        image=info["image"],
        image_digest=info["image_digest"],
        results_errors=info["results_errors"],
    )
    del info["image_ignored"]  # said only where it is true
    assert json.loads(json.dumps(stage.to_wire())) == info


async def test_text_of_every_kind_arrives(client: ApiClient, api: FakeApi) -> None:
    text = "\0é✓\N{REPLACEMENT CHARACTER}\u2028\x1b[0m😀"
    await client.report(WORKER_ID, result(text))
    assert api.calls[0].body["info"][0]["stdout"] == text


async def test_deregistering(client: ApiClient, api: FakeApi) -> None:
    api.say("deregister", Reply(body=sample("deregister_answer")))
    assert await client.deregister(WORKER_ID) == sample("deregister_answer")["data"]["handed_back"]
    assert api.calls[0].path == f"worker/{WORKER_ID}"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (fail(401), UnknownWorker),
        (fail(409), ClaimLost),
        (fail(413), TooLarge),
        (fail(400), Refused),
        (fail(404), Refused),
        (fail(408), ServerBusy),
        (fail(429), ServerBusy),
        (fail(500), ServerBusy),
        (Reply(status=502, text="<html>a proxy</html>"), ServerBusy),
        (fail(503), ServerBusy),
        (CUT, CutOff),
        (Reply(status=413, text="<html>a proxy</html>"), TooLarge),
        (Reply(status=401, text="<html>a proxy</html>"), UnusableAnswer),
        (Reply(status=409, text="<html>a proxy</html>"), UnusableAnswer),
        (Reply(text="<html>a captive portal</html>"), UnusableAnswer),
        (success(), UnusableAnswer),
        (Reply(text='{"status": "succ'), UnusableAnswer),
        (Reply(text="[1, 2]"), UnusableAnswer),
        (Reply(body={"status": "success", "data": None}), UnusableAnswer),
        (Reply(status=302, headers={"Location": "/api/v1/login"}), UnusableAnswer),
    ],
)
async def test_each_failure_has_its_type(client: ApiClient, api: FakeApi, reply: Reply, error: type[ApiError]) -> None:
    api.say("report", reply)
    with pytest.raises(error) as caught:
        await client.report(WORKER_ID, result())
    assert type(caught.value) is error
    assert TOKEN not in str(caught.value)
    assert len(api.calls) == 1


async def test_a_refused_token(client: ApiClient, api: FakeApi) -> None:
    api.say("register", fail(401))
    with pytest.raises(Unauthorized):
        await register(client)


@pytest.mark.parametrize(
    "data",
    [{}, {"worker_id": WORKER_ID}, {"heartbeat": 1}, {"worker_id": 7, "heartbeat": 1}]
    + [{"worker_id": WORKER_ID, "heartbeat": heartbeat} for heartbeat in (0, -1, "soon", True, None)],
)
async def test_an_odd_registration_is_tried_again(client: ApiClient, api: FakeApi, data: dict[str, Any]) -> None:
    api.say("register", success(**data))
    with pytest.raises(UnusableAnswer):
        await register(client)


async def test_nobody_there(client: ApiClient, api: FakeApi) -> None:
    await api.stop()
    with pytest.raises(Unreachable) as caught:
        await register(client)
    assert not isinstance(caught.value, CutOff)


async def test_an_api_that_does_not_answer(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """But a poll may be held for as long as it asked for."""
    answer = api.answer

    async def late(call: Call) -> Reply:
        await asyncio.sleep(1)
        return await answer(call)

    monkeypatch.setattr(api, "answer", late)
    async with ApiClient(api.url, TOKEN, answer_timeout=0.2) as client:
        assert await client.claim(WORKER_ID, slots=1, holding=(), wait=60) == Claims()
        with pytest.raises(Unreachable) as caught:
            await client.heartbeat(WORKER_ID, {})
    assert not isinstance(caught.value, CutOff)


@contextlib.asynccontextmanager
async def serving(serve: Callable[[asyncio.StreamReader], Coroutine[Any, Any, None]]) -> AsyncIterator[str]:
    """A server that answers an accepted result once `serve` has read the request; its URL."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader)
        body = b'{"status": "success", "data": {"job_id": "x", "state": "succeeded"}}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0, limit=65_536)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_large_result_may_take_longer_than_an_answer() -> None:
    size = 20_000_000

    async def slowly(reader: asyncio.StreamReader) -> None:
        read = 0
        while read < size:
            if read < size // 2:
                await asyncio.sleep(0.003)
            read += len(await reader.read(65_536))

    started = time.monotonic()
    async with serving(slowly) as url, ApiClient(url, TOKEN, answer_timeout=0.2) as client:
        assert await client.report(WORKER_ID, result("x" * size)) == "succeeded"
    assert time.monotonic() - started > 0.3


async def test_a_large_result_that_is_not_answered_is_given_up_as_soon_as_others() -> None:
    async def for_ever(reader: asyncio.StreamReader) -> None:
        while await reader.read(65_536):
            pass

    async with serving(for_ever) as url, ApiClient(url, TOKEN, answer_timeout=0.2) as client:
        with pytest.raises(Unreachable):
            await asyncio.wait_for(client.report(WORKER_ID, result("x" * 2_000_000)), 30)


async def test_a_proxy_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[bytes] = []

    async def first_line(reader: asyncio.StreamReader) -> None:
        lines.append(await reader.readline())

    async with serving(first_line) as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with ApiClient("http://api.invalid:1470", TOKEN) as client:
            assert await client.report(WORKER_ID, result()) == "succeeded"
    assert lines[0].startswith(b"POST http://api.invalid:1470/api/v1/grading_job/")


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("1e9", 60), ("-3", 0), ("Wed, 21 Oct 2026", 0), ("nan", 0)])
async def test_retry_after(client: ApiClient, api: FakeApi, header: str, seconds: float) -> None:
    api.say("register", fail(503, Retry_After=header))
    with pytest.raises(RetryableError) as caught:
        await register(client)
    assert caught.value.retry_after == seconds


def test_a_ca_certificate_that_cannot_be_read_is_a_set_up_fault(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for path in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(SetupError, match="CA certificate"):
            ApiClient("https://localhost", TOKEN, ca_certificate=path)


def test_halving_shortens_and_says_so() -> None:
    halved = result("abcdéf").with_halved_logs()
    assert halved.stages[0].stdout == Output(text="abc", truncated=True, dropped_bytes=len("déf".encode()))
    assert halved.stages[0].stderr == Output()
    assert not result("a").with_halved_logs().has_logs()


def test_a_stage_has_the_defaults_of_the_specification() -> None:
    stage = Stage(image="i")
    assert (stage.timeout, stage.enable_networking, stage.logs, stage.privileged) == (30.0, False, True, False)
