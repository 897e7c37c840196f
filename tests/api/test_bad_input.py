"""What is refused, with which status and words; and that nothing of it changes the store."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.serving import TOKEN, Api, run_config

UNKNOWN = "0123456789abcdef01234567"

#: Every call of the protocol, with how its path looks when ids are filled in; True: a worker's.
#: What the API asks of its store when nobody asks anything of it.
BY_ITSELF = {"time", "expire_leases", "unsettled_runs", "forget_workers", "forget_half_created"}
BY_ITSELF |= {"queued_requirements", "jobs_queued_elsewhere", "directory_since", "any_secret", "overheard"}

CALLS = [
    ("POST", "grading_run", False),
    ("GET", "grading_run", False),
    ("POST", f"grading_run/{UNKNOWN}", False),
    ("GET", f"grading_run/{UNKNOWN}", False),
    ("POST", f"grading_run/{UNKNOWN}/cancel", False),
    ("POST", f"grading_run/{UNKNOWN}/retry", False),
    ("GET", f"grading_run/{UNKNOWN}/events", False),
    ("GET", f"grading_job/{UNKNOWN}", False),
    ("GET", f"grading_job/{UNKNOWN}/log", False),
    ("GET", "workers", False),
    ("POST", "worker_register", False),
    ("GET", "worker_register", False),
    ("GET", "grader_register", False),
    ("POST", "heartbeat", True),
    ("GET", "grading_job", True),
    ("POST", f"grading_job/{UNKNOWN}", True),
    ("DELETE", f"worker/{UNKNOWN}", False),
    ("POST", f"workers/{UNKNOWN}/drain", False),
    ("POST", f"workers/{UNKNOWN}/resume", False),
    ("GET", "courses", False),
    ("PUT", "courses/cs", False),
    ("GET", "tokens", False),
    ("POST", "tokens", False),
    ("DELETE", f"tokens/{UNKNOWN}", False),
]
WORKERS_CALLS = [(method, path) for method, path, workers in CALLS if workers]


def failed(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The data of an answer that must be the caller's fault."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"status", "data"}
    assert body["status"] == "fail"
    assert body["data"]["message"]
    assert answer.headers["Content-Type"].startswith("application/json")
    return dict(body["data"])


@pytest.mark.parametrize("authorization", [None, "", "wrong", TOKEN[:-1], f"{TOKEN}x", "Bearer", f"Basic {TOKEN}", "ÿ"])
async def test_no_call_is_answered_without_the_token(api: Api, authorization: str | None) -> None:
    headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
    for method, path, _ in CALLS:
        answer = await api.http.request(method, f"/api/v1/{path}", headers=headers)
        assert "token" in failed(answer, 401)["message"]
        assert "WWW-Authenticate" in answer.headers
    assert set(api.store.calls) <= BY_ITSELF


async def test_the_token_in_the_query_is_no_token(api: Api) -> None:
    failed(await api.call("GET", "workers", token=None, params={"token": TOKEN, "Authorization": TOKEN}), 401)


@pytest.mark.parametrize("authorization", [TOKEN, f"Bearer {TOKEN}", f"bearer {TOKEN}"])
async def test_the_token_goes_alone_or_as_bearer(api: Api, authorization: str) -> None:
    await api.data("GET", "workers", token=authorization)


@pytest.mark.parametrize(("method", "path"), WORKERS_CALLS)
async def test_a_worker_without_an_id_is_told_to_register(api: Api, method: str, path: str) -> None:
    assert "register" in failed(await api.call(method, path, {"success": True}), 401)["message"]


@pytest.mark.parametrize(("method", "path"), WORKERS_CALLS)
async def test_an_unknown_worker_is_told_to_register_again(api: Api, method: str, path: str) -> None:
    body = None if path == "heartbeat" else {"success": True}
    message = failed(await api.call(method, path, body, worker=UNKNOWN), 401)["message"]
    assert "register" in message
    assert UNKNOWN in message


@pytest.mark.parametrize(("method", "path"), WORKERS_CALLS)
async def test_a_worker_id_that_is_none_is_malformed(api: Api, method: str, path: str) -> None:
    for worker in ("x", UNKNOWN + "0", UNKNOWN[:-1], "g" * 24, "../" * 8):
        failed(await api.call(method, path, worker=worker), 400)


@pytest.mark.parametrize("name", ["worker_id", "Worker-Id", "worker-id"])
async def test_a_worker_id_has_two_names(api: Api, name: str) -> None:
    worker = await api.register()
    await api.data("POST", "heartbeat", headers={name: worker})


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p, workers in CALLS if UNKNOWN in p and not workers])
async def test_ids_in_paths(api: Api, method: str, path: str) -> None:
    status = 401 if "worker" in path else 404  # a worker that is unknown must register again
    assert UNKNOWN in failed(await api.call(method, path), status)["message"]
    for malformed in ("x", UNKNOWN + "0", UNKNOWN[:-1], "g" * 24, "%00" * 24, "a%0a", "%ff", "ü" * 24, "..;"):
        failed(await api.call(method, path.replace(UNKNOWN, malformed)), 400)


async def test_the_result_of_an_unknown_job(api: Api) -> None:
    worker = await api.register()
    failed(await api.call("POST", f"grading_job/{UNKNOWN}", {"success": True}, worker=worker), 404)
    failed(await api.call("POST", "grading_job/x", {"success": True}, worker=worker), 400)


@pytest.mark.parametrize("path", ["/api", "/api/v1", "/api/v1/", "/api/v1/grading_runs", "/api/v1/grading_run/"])
async def test_unknown_paths(api: Api, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        failed(await api.http.request(method, path, content=b"x" * 100), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "grading_run", "GET, POST"),
        ("DELETE", f"grading_run/{UNKNOWN}", "GET, POST"),
        ("POST", f"grading_job/{UNKNOWN}/log", "GET"),
        ("GET", "heartbeat", "POST"),
        ("POST", "workers", "GET"),
        ("GET", f"worker/{UNKNOWN}", "DELETE"),
        ("PATCH", "worker_register", "GET, POST"),
        ("OPTIONS", "grading_run", "GET, POST"),
    ],
)
async def test_wrong_methods(api: Api, method: str, path: str, allowed: str) -> None:
    worker = await api.register()
    answer = await api.call(method, path, worker=worker)
    failed(answer, 405)
    assert answer.headers["Allow"] == allowed


async def test_head_is_answered_without_a_body_and_the_connection_lives_on(api: Api) -> None:
    answer = await api.call("HEAD", "workers")
    assert (answer.status_code, answer.content) == (405, b"")
    await api.data("GET", "workers")


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [(b"", 1, 1), (b"{", 1, 2), (b'{\n  "students": x\n}', 2, 15), (b'{"a": NaN}', 1, 7), (b"\xff", 1, 1)],
)
async def test_what_is_not_json_is_told_by_line_and_column(api: Api, body: bytes, line: int, column: int) -> None:
    told = failed(await api.call("POST", "grading_run", body), 400)
    assert (told["line"], told["column"]) == (line, column)


BAD_CONFIGS = [
    ({}, "$"),
    ([], "$"),
    (run_config(students=0), "$.students"),
    (run_config() | {"student_pipeline": []}, "$.student_pipeline"),
    (run_config() | {"student_pipeline": [{"image": 7}]}, "$.student_pipeline[0].image"),
    (run_config(env={"A-B": "x"}), "$.env"),
    (run_config(env={"A": ["x"]}), "$.env.A"),
    (run_config(env={"A": "$UNKNOWN"}), "$.env.A"),
    (run_config() | {"student_pipeline": [{"image": "i", "timeout": 0}]}, "$.student_pipeline[0].timeout"),
    (run_config() | {"student_pipeline": [{"image": "i", "timeout": 3601}]}, "$.student_pipeline[0].timeout"),
    (run_config() | {"student_pipeline": [{"image": "i", "privileged": True}]}, "$.student_pipeline[0].privileged"),
    (run_config() | {"colour": "red"}, "$"),
]


@pytest.mark.parametrize(("config", "path"), BAD_CONFIGS)
async def test_a_config_of_the_wrong_shape_is_told_by_path(api: Api, config: Any, path: str) -> None:
    told = failed(await api.call("POST", "grading_run", config), 400)
    assert told["errors"][0]["path"] == path
    assert told["errors"][0]["message"]
    assert told["more_errors"] == 0 or len(told["errors"]) == 20
    assert "create_run" not in api.store.calls
    assert (await api.data("GET", "grading_run"))["grading_runs"] == []


async def test_twenty_faults_are_told_and_the_others_counted(api: Api) -> None:
    told = failed(await api.call("POST", "grading_run", run_config() | {"students": [{"A": None}] * 10_000}), 400)
    assert (len(told["errors"]), told["more_errors"]) == (20, 9_980)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("grading_run", {"state": "begun"}),
        ("grading_run", {"limit": "0"}),
        ("grading_run", {"limit": "1001"}),
        ("grading_run", {"limit": "ten"}),
        ("grading_run", {"limit": ""}),
        ("grading_run", {"limit": "١"}),
        ("grading_run", {"after": "x"}),
        ("RUN", {"jobs": "some"}),
        ("RUN", {"jobs": "all", "limit": "-1"}),
        ("RUN", {"jobs": "all", "after": "x"}),
        ("RUN", {"jobs": "all", "after": "-1"}),
        ("RUN", {"jobs": "all", "after": "0" * 20 + "9" * 30}),
        ("JOB/log", {"stage": "first"}),
        ("JOB/log", {"stage": "0" * 20 + "9" * 30}),
        ("grading_job", {"slots": "0"}),
        ("grading_job", {"slots": "1.5"}),
        ("grading_job", {"slots": "9" * 5_000}),
        ("grading_job", {"holding": "x"}),
        ("grading_job", {"holding": f"{UNKNOWN},x"}),
        ("grading_job", {"holding": ",".join([UNKNOWN] * 1_025)}),
    ],
)
async def test_bad_queries(api: Api, path: str, params: dict[str, str]) -> None:
    worker = await api.register()
    run_id = await api.start()
    job_id = (await api.run(run_id, jobs="all"))["jobs"][0]["job_id"]
    path = path.replace("RUN", f"grading_run/{run_id}").replace("JOB", f"grading_job/{job_id}")
    failed(await api.call("GET", path, params=params, worker=worker), 400)
    assert (await api.run(run_id))["counts"]["queued"] == 1


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'{"slots": 0}', b'{"slots": "2"}', b'{"token": "x"}', b"{"])
async def test_bad_registrations(api: Api, body: bytes) -> None:
    failed(await api.call("POST", "worker_register", body), 400)
    assert (await api.data("GET", "workers"))["workers"] == []


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b'{"running": "x"}', b'{"running": [{"job_id": "x"}]}', b'{"running": [{}]}', b"x"]
)
async def test_bad_heartbeats(api: Api, body: bytes) -> None:
    failed(await api.call("POST", "heartbeat", body, worker=await api.register()), 400)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", "$"),
        (b"  ", "$"),
        (b"[]", "$"),
        (b"null", "$"),
        (b"{}", "$"),
        (b'{"success": "yes"}', "$.success"),
        (b'{"success": true, "attempt": 99999999999999999999}', "$.attempt"),
        (b'{"success": false, "reason": "worker_lost"}', "$.reason"),
        (b'{"success": true, "info": [7]}', "$.info[0]"),
        (b'{"status": "ok", "data": {"success": 1}}', "$.data.success"),
        (b'{"success": true, "info": [{"a": %s}]}' % (b"[" * 900 + b"]" * 900), "$"),
        (b'{"success": true, "pad": "%s", "info": [{"a": %s}]}' % (b"x" * 70_000, b"[" * 940 + b"]" * 940), "$"),
    ],
)
async def test_a_bad_result_is_refused_and_the_job_goes_on(api: Api, body: bytes, path: str) -> None:
    worker = await api.register()
    run_id = await api.start()
    job = await api.claim(worker)
    told = failed(await api.call("POST", f"grading_job/{job['job_id']}", body, worker=worker), 400)
    assert told["errors"][0]["path"] == path
    assert (await api.run(run_id))["counts"]["running"] == 1
    assert (await api.report(worker, job)).status_code == 200


async def test_starting_twice(api: Api) -> None:
    run_id = await api.create()
    answers = await asyncio.gather(*(api.call("POST", f"grading_run/{run_id}") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]
    assert "started" in failed(await api.call("POST", f"grading_run/{run_id}"), 400)["message"]
    assert (await api.run(run_id))["counts"]["queued"] == 1


async def test_a_course_of_blanks_is_one_that_nobody_has(api: Api) -> None:
    await api.create()
    for course in ("\x85", " "):
        assert (await api.data("GET", "grading_run", params={"course": course}))["grading_runs"] == []
    assert len((await api.data("GET", "grading_run", params={"course": " default "}))["grading_runs"]) == 1
