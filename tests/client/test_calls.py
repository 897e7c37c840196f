"""Calls without a network: what is sent, what the samples are read as, and what is sent again after which failure."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from broadway_client import AsyncClient, Client, calls, codec, errors, models
from broadway_client.connection import Connection
from broadway_client.exchange import Flow, Pause, Request, Retries
from tests.client.serving import ROOT, run_config

RUN_ID = "697dd0a80a1b2c3d4e5f6001"


def sample(name: str) -> Any:
    return json.loads((ROOT / "tests" / "samples" / f"{name}.json").read_text())


# --- samples ---------------------------------------------------------------------------------------------------------

SAMPLES: list[tuple[str, type[codec.Answer]]] = [
    ("create_run_answer", models.RunCreated),
    ("start_run_answer", models.RunMoved),
    ("cancel_answer", models.RunMoved),
    ("retry_answer", models.RunRetried),
    ("run_status_answer", models.RunStatus),
    ("run_status_jobs_answer", models.JobPage),
    ("run_list_answer", models.RunPage),
    ("job_answer", models.JobDetail),
    ("job_answer_results", models.JobDetail),
    ("job_log_answer", models.JobLog),
    ("workers_answer", models.WorkerList),
    ("drain_answer", models.WorkerNamed),
    ("healthz_answer", models.Health),
]


def assert_all_is_known(answer: codec.Answer) -> None:
    """Nothing that the API says has no field here."""
    names = {field.name for field in dataclasses.fields(answer)} - {"raw"}
    assert set(answer.raw) <= names, type(answer).__name__
    for name in names:
        value = getattr(answer, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, codec.Answer):
                assert_all_is_known(one)


@pytest.mark.parametrize(("name", "kind"), SAMPLES)
def test_a_sample_is_read_in_full(name: str, kind: type[codec.Answer]) -> None:
    answer = codec.decode(kind, sample(name)["data"])
    assert answer.raw == sample(name)["data"]
    assert_all_is_known(answer)


def test_what_a_newer_api_says_is_borne() -> None:
    data = sample("run_status_answer")["data"] | {"state": "paused", "weather": "fine"}
    status = codec.decode(models.RunStatus, data)
    assert (status.state, status.state.ended, status.raw["weather"]) == ("paused", False, "fine")


@pytest.mark.parametrize(
    ("change", "where"),
    [({"state": 7}, "$.state"), ({"counts": []}, "$.counts"), ({"created_at": "soon"}, "$.created_at")],
)
def test_an_answer_of_another_shape_names_the_place(change: dict[str, Any], where: str) -> None:
    with pytest.raises(codec.BadShape, match=where.replace("$", r"\$")):
        codec.decode(models.RunStatus, sample("run_status_answer")["data"] | change)


# --- what is sent again ----------------------------------------------------------------------------------------------

Answerer = Callable[[Request[Any]], httpx.Response | Exception]


class Script:
    """Plays the network: each request gets the next answer; `sent` and `slept` are what happened."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.sent: list[Request[Any]] = []
        self.slept = 0.0
        self.retries = Retries(patience=30, clock=lambda: self.slept, chance=lambda: 1.0)

    def play(self, flow: Flow[Any]) -> Any:
        reply: Any = None
        try:
            while True:
                step = flow.send(reply)
                if isinstance(step, Pause):
                    self.slept += step.seconds
                    reply = None
                else:
                    self.sent.append(step)
                    reply = self._answer(step)
        except StopIteration as end:
            return end.value

    def _answer(self, step: Request[Any]) -> Any:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        request = httpx.Request(step.method, f"http://api.test/{step.path}")
        if isinstance(answer, type):
            return answer("broken", request=request)
        status, body, *headers = answer
        return httpx.Response(status, json=body, headers=headers[0] if headers else {}, request=request)


LOST, REFUSED = httpx.ReadError, httpx.ConnectError
AWAY = (503, {"status": "error", "message": "the store is unavailable"}, {"Retry-After": "5"})


def ok(**data: Any) -> tuple[int, Any]:
    return 200, {"status": "success", "data": data}


def fail(status: int, message: str) -> tuple[int, Any]:
    return status, {"status": "fail", "data": {"message": message}}


def test_a_creation_whose_answer_got_lost_is_sent_again_under_its_key() -> None:
    script = Script(LOST, AWAY, ok(grading_run_id=RUN_ID))
    created = script.play(
        calls.create_run(script.retries, run_config("amy"), course=None, priority=None, idempotency_key=None)
    )
    assert created.grading_run_id == RUN_ID
    keys = {request.headers["Idempotency-Key"] for request in script.sent}
    assert (len(script.sent), len(keys)) == (3, 1)
    assert script.slept == 0.25 + 5.0  # the back-off, then what Retry-After says


def test_a_start_whose_answer_got_lost_has_started_the_run() -> None:
    status = sample("run_status_answer")
    script = Script(LOST, fail(400, "it was started before"), (200, status))
    assert script.play(calls.start_run(script.retries, RUN_ID)).state == status["data"]["state"]


def test_a_start_that_is_refused_at_once_is_refused() -> None:
    script = Script(REFUSED, fail(400, "it was started before"))  # the first try never reached the API
    with pytest.raises(errors.InvalidRequest, match="started before"):
        script.play(calls.start_run(script.retries, RUN_ID))


def test_what_is_gone_after_a_lost_deletion_was_deleted() -> None:
    script = Script(LOST, fail(404, "there is no secret KEY"))
    assert script.play(calls.delete_secret(script.retries, "KEY", None)).name == "KEY"
    script = Script(fail(404, "there is no secret KEY"))
    with pytest.raises(errors.NotFound):
        script.play(calls.delete_secret(script.retries, "KEY", None))


@pytest.mark.parametrize(("failure", "sendings"), [(LOST, 1), (AWAY, 1), (REFUSED, 2)])
def test_a_token_is_not_made_twice(failure: Any, sendings: int) -> None:
    script = Script(failure, fail(403, "operators only"))
    with pytest.raises(errors.ClientError):
        script.play(calls.make_token(script.retries, "worker", course=None, label=None, expires_in=None))
    assert len(script.sent) == sendings


def test_patience_ends() -> None:
    script = Script(REFUSED)
    with pytest.raises(errors.Unreachable, match=r"no answer from http://api\.test: broken"):
        script.play(calls.run(script.retries, RUN_ID))
    assert 25 <= script.slept <= 30


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_a_refusal_is_final(status: int) -> None:
    script = Script(fail(status, "no"))
    with pytest.raises(errors.ApiError, match="no") as refused:
        script.play(calls.run(script.retries, RUN_ID))
    assert (refused.value.status, len(script.sent), script.slept) == (status, 1, 0)


def test_faults_come_with_their_places() -> None:
    script = Script((400, sample("fault_answer")), (400, sample("not_json_answer")))
    with pytest.raises(errors.InvalidRequest) as refused:
        script.play(calls.create_run(script.retries, {}, course=None, priority=None, idempotency_key=None))
    assert refused.value.faults[0].path == "$.student_pipeline[0].image"
    with pytest.raises(errors.InvalidRequest) as refused:
        script.play(calls.create_run(script.retries, "{", course=None, priority=None, idempotency_key=None))
    assert (refused.value.line, refused.value.column) == (2, 13)


@pytest.mark.parametrize("answer", [(200, "hello"), (404, "not here"), (200, {"status": "success", "data": 3})])
def test_a_stranger_is_told_from_an_api(answer: Any) -> None:
    script = Script(answer)
    with pytest.raises(errors.NotBroadway, match=r"^http://api\.test does not answer like a Broadway API"):
        script.play(calls.run(script.retries, RUN_ID))


def test_no_id_leads_to_another_path() -> None:
    script = Script(ok(worker_id="x"))
    script.play(calls.steer_worker(script.retries, "../courses?", "drain"))
    assert script.sent[0].path == "api/v1/workers/..%2Fcourses%3F/drain"


@pytest.mark.parametrize("url", ["nowhere", "ftp://api", "http://", "http://user:secret@api", "http://api:port", ""])
def test_an_url_that_cannot_be_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(errors.InvalidSettings) as refused:
        Connection(url=url, token="t")
    assert "secret" not in str(refused.value)


def test_no_token_is_shown() -> None:
    assert "s3cret" not in repr(Connection(url="http://api", token="s3cret"))
    with pytest.raises(errors.InvalidSettings) as refused:
        Connection(url="http://api", token="s3cret s3cret")
    assert "s3cret" not in str(refused.value)


def test_both_clients_have_the_same_methods() -> None:
    def methods(cls: type) -> dict[str, tuple[str, ...]]:
        found = inspect.getmembers(cls, inspect.isfunction)
        return {name: tuple(inspect.signature(one).parameters) for name, one in found if not name.startswith("_")}

    ours, theirs = methods(Client), methods(AsyncClient)
    assert ours.pop("close") == theirs.pop("aclose")
    assert ours == theirs
