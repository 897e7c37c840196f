"""Courses, tokens and roles as they show on the wire: who may do what, and what nobody learns of others."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import httpx
import pytest

from broadway_api.ids import new_id
from broadway_api.openapi.document import document
from broadway_api.openapi.model import Context
from broadway_api.policy import Policy
from tests.api.serving import DEADLINE, TOKEN, Api, Json, eventually, run_config, serving

UNKNOWN = "0123456789abcdef01234567"

#: Who beside the operator may use each call that asks for a token.
MAY = {
    "GET /api/v1/grading_run": "admin query",
    "POST /api/v1/grading_run": "admin",
    "GET /api/v1/grading_run/{grading_run_id}": "admin query",
    "POST /api/v1/grading_run/{grading_run_id}": "admin",
    "POST /api/v1/grading_run/{grading_run_id}/cancel": "admin",
    "POST /api/v1/grading_run/{grading_run_id}/retry": "admin",
    "GET /api/v1/grading_run/{grading_run_id}/events": "admin query",
    "GET /api/v1/grading_run/{grading_run_id}/deliveries": "admin query",
    "GET /api/v1/grading_run/{grading_run_id}/failures": "admin query",
    "GET /api/v1/grading_run/{grading_run_id}/statistics": "admin query",
    "GET /api/v1/grading_run/{grading_run_id}/jobs": "admin query",
    "GET /api/v1/overview/runs": "admin query",
    "GET /api/v1/overview/runs/events": "admin query",
    "GET /api/v1/overview/queue": "admin query",
    "GET /api/v1/overview/queue/events": "admin query",
    "GET /api/v1/overview/workers": "",
    "GET /api/v1/overview/workers/events": "",
    # A worker of the course protocol whose id looks like ours asks for work there; no job is shown to it.
    "GET /api/v1/grading_job/{job_id}": "admin query worker",
    "GET /api/v1/grading_job/{job_id}/log": "admin query",
    "POST /api/v1/grading_job/{job_id}/output": "worker",
    "GET /api/v1/worker_register": "worker",
    "POST /api/v1/worker_register": "worker",
    "GET /api/v1/grader_register": "worker",
    "POST /api/v1/grader_register": "worker",
    "POST /api/v1/heartbeat": "worker",
    "GET /api/v1/grading_job": "worker",
    "POST /api/v1/grading_job": "worker",
    "POST /api/v1/grading_job/{job_id}": "worker",
    "DELETE /api/v1/worker/{worker_id}": "worker",
    "GET /api/v1/workers": "",
    "POST /api/v1/workers/{worker_id}/drain": "",
    "POST /api/v1/workers/{worker_id}/resume": "",
    "GET /api/v1/secrets": "admin",
    "PUT /api/v1/secrets/{secret}": "admin",
    "DELETE /api/v1/secrets/{secret}": "admin",
    "POST /api/v1/reseal_secrets": "",
    "GET /api/v1/courses": "",
    "GET /api/v1/courses/{course}": "",
    "PUT /api/v1/courses/{course}": "",
    "DELETE /api/v1/courses/{course}": "",
    "GET /metrics": "",
    "GET /api/v1/tokens": "",
    "POST /api/v1/tokens": "",
    "DELETE /api/v1/tokens/{token_id}": "",
}


@dataclass(frozen=True, kw_only=True)
class Course:
    """A course with its two tokens."""

    id: str
    admin: str
    query: str


async def make_token(api: Api, role: str, **fields: Any) -> Json:
    """What comes back when one is made."""
    return dict(await api.data("POST", "tokens", {"role": role, **fields}))


async def make_course(api: Api, course_id: str) -> Course:
    """A new course."""
    await api.data("PUT", f"courses/{course_id}", {})
    admin, query = [str((await make_token(api, role, course=course_id))["token"]) for role in ("admin", "query")]
    return Course(id=course_id, admin=admin, query=query)


@pytest.fixture
async def courses(api: Api) -> tuple[Course, Course]:
    """Two of them."""
    return await make_course(api, "cs-241"), await make_course(api, "ece_391")


async def ended_run(api: Api, token: str) -> tuple[str, str]:
    """A run that has ended, and its job."""
    run_id = await api.create(token=token)
    await api.data("POST", f"grading_run/{run_id}", token=token)
    worker = await api.register(hostname="rack-7")
    job = await api.claim(worker)
    await api.report(worker, job, info=[{"exit_code": 0, "stdout": "secret of a course"}])
    return run_id, str(job["job_id"])


# --- roles -----------------------------------------------------------------------------------------------------------


def test_the_table_has_every_call_that_asks_for_a_token() -> None:
    described = document(Context(policy=Policy(), queue_empty_code=498))["paths"]
    calls = {
        f"{method.upper()} {path}"
        for path, methods in described.items()
        for method, operation in methods.items()
        # Those of the course protocol say 401 to a token of another role, and have tests of their own.
        if method != "parameters" and operation["security"] and operation["tags"] != ["Course protocol"]
    }
    assert calls == set(MAY)


@pytest.mark.parametrize("call", MAY)
async def test_a_token_does_what_its_role_may(api: Api, call: str) -> None:
    await api.data("PUT", "courses/cs", {})
    tokens = {
        "worker": (await make_token(api, "worker"))["token"],
        "operator": (await make_token(api, "operator"))["token"],
        **{role: (await make_token(api, role, course="cs"))["token"] for role in ("admin", "query")},
    }
    method, _, template = call.partition(" ")
    path = re.sub(r"\{\w+\}", UNKNOWN, template)
    for role, token in tokens.items():
        may = role == "operator" or role in MAY[call].split()
        headers = {"Authorization": token, "worker_id": UNKNOWN}
        async with api.http.stream(method, path, headers=headers) as answer:  # some do not end by themselves
            assert (answer.status_code != 403) == may, role
            if not may:
                assert role in json.loads(await answer.aread())["data"]["message"]
    sender = {"Authorization": tokens["query"], "worker_id": UNKNOWN}
    refused = await api.http.request("PATCH", path, headers=sender)
    assert refused.status_code == 405


async def test_a_role_is_checked_before_anything_is_read_or_asked(api: Api, courses: tuple[Course, Course]) -> None:
    asked = len([name for name in api.store.calls if name != "directory_since"])
    answer = await api.call("POST", "grading_run", b"\xff" * 1_000, token=courses[0].query)
    assert answer.status_code == 403
    assert (
        len([name for name in api.store.calls if name not in ("directory_since", "queued_requirements")]) <= asked + 1
    )


async def test_only_the_operator_says_which_run_goes_first(api: Api, courses: tuple[Course, Course]) -> None:
    refused = await api.call("POST", "grading_run", run_config(), token=courses[0].admin, params={"priority": 0})
    assert refused.status_code == 403
    assert (await api.data("GET", "grading_run"))["grading_runs"] == []
    run_id = await api.create(run_config(9), params={"priority": 2, "course": courses[0].id})
    assert (await api.data("GET", f"grading_run/{run_id}", token=courses[0].query))["priority"] == 2


# --- courses apart ---------------------------------------------------------------------------------------------------


def without_id(answer: httpx.Response, given: str) -> tuple[int, str, list[str]]:
    return answer.status_code, answer.text.replace(given, "ID"), sorted(answer.headers)


async def test_what_belongs_to_another_course_is_not_there(any_api: Api) -> None:
    api = any_api
    mine, other = await make_course(api, "mine"), await make_course(api, "other")
    run_id, job_id = await ended_run(api, other.admin)
    live = await api.create(token=other.admin)
    calls = [
        ("GET", "grading_run/{}", run_id, None),
        ("GET", "grading_run/{}?jobs=all", run_id, None),
        ("GET", "grading_run/{}/events", run_id, None),
        ("GET", "grading_run/{}/deliveries", run_id, None),
        ("POST", "grading_run/{}", live, None),
        ("POST", "grading_run/{}/cancel", live, None),
        ("POST", "grading_run/{}/retry", run_id, {"students": [{"NET_ID": "s0"}]}),
        ("GET", "grading_job/{}", job_id, None),
        ("GET", "grading_job/{}/log", job_id, None),
        ("GET", "grading_job/{}/log?follow=true", job_id, None),
    ]
    for (method, path, there, body), token in product(calls, (mine.admin, mine.query)):
        if method == "POST" and token == mine.query:
            continue
        got = await api.call(method, path.format(there), body, token=token)
        missing = await api.call(method, path.format(UNKNOWN), body, token=token)
        assert got.status_code == 404, f"{method} {path}"
        assert without_id(got, there) == without_id(missing, UNKNOWN)
        if method == "GET":
            assert (await api.call(method, path.format(there), body, token=other.query)).status_code in (200, 204)
    assert (await api.run(live))["state"] == "ready"
    assert (await api.run(run_id))["state"] == "finished"


async def test_lists_are_of_ones_own_course(api: Api, courses: tuple[Course, Course]) -> None:
    mine, other = courses
    ids = {token: await api.create(token=token) for token in (mine.admin, other.admin)}
    ids["default"] = await api.create()

    async def listed(token: str | None = None, **params: str) -> list[str]:
        named = {} if token is None else {"token": token}
        answer = await api.data("GET", "grading_run", params=params, **named)
        return [run["grading_run_id"] for run in answer["grading_runs"]]

    assert await listed(mine.query) == [ids[mine.admin]]
    assert await listed(mine.query, course=mine.id) == [ids[mine.admin]]
    assert await listed(mine.query, course=other.id) == await listed(mine.query, course="none") == []
    assert await listed() == [ids["default"], ids[other.admin], ids[mine.admin]]
    assert await listed(course=other.id) == [ids[other.admin]]
    assert (await api.run(ids["default"]))["course"] == "default"


async def test_whose_a_run_is(api: Api, courses: tuple[Course, Course]) -> None:
    mine, other = courses
    theirs = await api.create(params={"course": other.id})
    assert (await api.run(theirs))["course"] == other.id
    own = await api.create(token=mine.admin, params={"course": mine.id})
    assert (await api.run(own))["course"] == mine.id
    for token, course in ((mine.admin, other.id), (mine.admin, "none"), (mine.admin, "default"), (None, "none")):
        headers = {"Authorization": token or TOKEN}
        answer = await api.call(
            "POST", "grading_run", run_config(), params={"course": course}, token=None, headers=headers
        )
        assert (answer.status_code, answer.json()["data"]["message"]) == (404, f"there is no course {course}")


async def test_idempotency_keys_are_a_courses_own(any_api: Api) -> None:
    api = any_api
    courses = [await make_course(api, "one"), await make_course(api, "two")]
    key = {"Idempotency-Key": "monday"}
    first, second = [await api.create(run_config(2), token=course.admin, headers=key) for course in courses]
    assert first != second
    assert await api.create(run_config(2), token=courses[0].admin, headers=key) == first
    assert await api.create(run_config(1), headers=key) not in (first, second)  # no mismatch with theirs


async def test_a_course_learns_the_host_of_a_job_but_no_worker_id(api: Api, courses: tuple[Course, Course]) -> None:
    run_id, job_id = await ended_run(api, courses[0].admin)
    worker = (await api.data("GET", f"grading_job/{job_id}"))["worker_id"]
    assert worker is not None
    for path in (f"grading_job/{job_id}", f"grading_run/{run_id}?jobs=all"):
        seen = await api.call("GET", path, token=courses[0].admin)
        assert worker not in seen.text
        assert worker in (await api.call("GET", path)).text
    shown = await api.data("GET", f"grading_job/{job_id}", token=courses[0].query)
    assert (shown["worker_hostname"], shown["worker_id"]) == ("rack-7", None)


async def test_a_course_has_secrets_of_its_own(api: Api, courses: tuple[Course, Course]) -> None:
    mine, other = courses
    await api.data("PUT", "secrets/KEY", {"value": "correct-horse"}, token=mine.admin)

    async def names(**named: Any) -> list[str]:
        return [secret["name"] for secret in (await api.data("GET", "secrets", **named))["secrets"]]

    assert await names(token=mine.admin) == await names(params={"course": mine.id}) == ["KEY"]
    assert await names(token=other.admin) == await names() == []
    assert (await api.call("DELETE", "secrets/KEY", token=other.admin)).status_code == 404
    assert (await api.call("GET", "secrets", token=other.admin, params={"course": mine.id})).status_code == 404
    assert await names(token=mine.admin) == ["KEY"]


# --- workers ---------------------------------------------------------------------------------------------------------


async def test_a_worker_token_speaks_for_its_own_workers_only(any_api: Api) -> None:
    api = any_api
    mine, theirs = [str((await make_token(api, "worker"))["token"]) for _ in range(2)]
    other = await api.register()  # the operator's
    foreign = str((await api.data("POST", "worker_register", {}, token=theirs))["worker_id"])
    own = str((await api.data("POST", "worker_register", {}, token=mine))["worker_id"])
    run_id = await api.start(run_config(3))
    held = await api.claim(foreign)

    for worker in (other, foreign):
        for method, path in (
            ("POST", "heartbeat"),
            ("GET", "grading_job"),
            ("POST", f"grading_job/{held['job_id']}"),
            ("DELETE", f"worker/{worker}"),
        ):
            body = {"success": True, "attempt": 1} if path.startswith("grading_job/") else None
            got = await api.call(method, path, body, worker=worker, token=mine)
            at_none = path.replace(worker, UNKNOWN)
            missing = await api.call(method, at_none, body, worker=UNKNOWN, token=mine)
            assert got.status_code == 401
            assert without_id(got, worker) == without_id(missing, UNKNOWN)
    assert (await api.run(run_id))["counts"]["running"] == 1

    job = await api.claim(own, token=mine)
    await api.data("POST", "heartbeat", {"running": []}, worker=own, token=mine)
    body = {"success": True, "attempt": job["attempt"]}
    await api.data("POST", f"grading_job/{job['job_id']}", body, worker=own, token=mine)
    await api.data("POST", "heartbeat", worker=own)  # the operator may speak for all
    await api.data("DELETE", f"worker/{own}", token=mine)


async def test_worker_tokens_of_one_label_share_their_workers(api: Api) -> None:
    old, new = [await make_token(api, "worker", label="rack 7") for _ in range(2)]
    worker = str((await api.data("POST", "worker_register", {}, token=old["token"]))["worker_id"])
    await api.data("DELETE", f"tokens/{old['token_id']}")
    await api.data("POST", "heartbeat", worker=worker, token=new["token"])


# --- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once_and_kept_as_a_digest(any_api: Api) -> None:
    api = any_api
    course = await make_course(api, "cs")
    made = await make_token(api, "admin", course="cs", label="Ada's laptop", expires_in=3_600)
    assert re.fullmatch(r"bw_admin_[-\w]{43}", made["token"])
    listed = await api.call("GET", "tokens")
    for token in (made["token"], course.admin, course.query):
        assert token not in listed.text
    assert "digest" not in listed.text
    shown = {token["token_id"]: token for token in listed.json()["data"]["tokens"]}
    assert shown[made["token_id"]] == {name: value for name, value in made.items() if name != "token"}
    assert (made["state"], made["label"], made["role"]) == ("valid", "Ada's laptop", "admin")
    assert made["token"] not in repr(await api.store.directory())


async def test_several_tokens_are_valid_until_each_is_revoked(api: Api, courses: tuple[Course, Course]) -> None:
    old, new = [await make_token(api, "admin", course=courses[0].id) for _ in range(2)]
    for _ in range(2):  # repeating it is harmless
        assert (await api.data("DELETE", f"tokens/{old['token_id']}"))["state"] == "revoked"
        assert (await api.call("GET", "grading_run", token=old["token"])).status_code == 401
        await api.data("GET", "grading_run", token=new["token"])
    assert (await api.call("DELETE", f"tokens/{new_id()}")).status_code == 404


async def test_a_token_expires(api: Api) -> None:
    began = time.monotonic()
    made = await make_token(api, "operator", expires_in=1)

    async def refused() -> bool:
        return (await api.call("GET", "workers", token=made["token"])).status_code == 401

    assert not await refused() or time.monotonic() - began > 1  # on a machine that is this slow
    await eventually(refused)
    (listed,) = (await api.data("GET", "tokens"))["tokens"]
    assert listed["state"] == "expired"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$"),
        ({"role": "root"}, "$.role"),
        ({"role": "admin"}, "$.course"),
        ({"role": "worker", "course": "cs"}, "$.course"),
        ({"role": "worker", "expires_in": 0}, "$.expires_in"),
        ({"role": "worker", "label": "two\nlines"}, "$.label"),
        ({"role": "worker", "token": "mine"}, "$"),
        ([], "$"),
        (None, "$"),
    ],
)
async def test_a_token_that_cannot_be_made(api: Api, body: Any, path: str) -> None:
    answer = await api.call("POST", "tokens", body)
    assert answer.status_code == 400
    assert answer.json()["data"]["errors"][0]["path"] == path
    assert (await api.data("GET", "tokens"))["tokens"] == []


async def test_a_token_of_no_course_cannot_be_made(api: Api) -> None:
    answer = await api.call("POST", "tokens", {"role": "admin", "course": "none"})
    assert (answer.status_code, answer.json()["data"]["message"]) == (404, "there is no course none")
    await make_token(api, "admin", course="default")  # which is always there


# --- courses ---------------------------------------------------------------------------------------------------------


async def test_a_course_is_made_changed_and_taken_away(any_api: Api) -> None:
    api = any_api
    entry = {"course": "cs-1", "weight": 1.0, "tokens": 2, "query_tokens": 1, "from_file": False}
    body = {"tokens": ["short", "other"], "query_tokens": ["reader"]}
    assert await api.data("PUT", "courses/cs-1", body) == entry
    assert await api.data("PUT", "courses/cs-1", {"weight": 2.5}) == entry | {"weight": 2.5}
    assert await api.data("GET", "courses") == {"courses": [entry | {"weight": 2.5}]}
    assert "short" not in (await api.call("GET", "courses/cs-1")).text
    run_id = await api.create(token="short")
    assert (await api.run(run_id))["course"] == "cs-1"
    assert (await api.call("GET", "grading_run", token="reader")).is_success
    assert (await api.data("PUT", "courses/cs-1", {"tokens": ["other"]}))["tokens"] == 1
    assert (await api.call("GET", "grading_run", token="short")).status_code == 401
    made = await make_token(api, "query", course="cs-1")

    await api.data("DELETE", "courses/cs-1")
    for token in ("other", "reader", made["token"]):
        assert (await api.call("GET", "grading_run", token=token)).status_code == 401
    await api.data("PUT", "courses/cs-1", {})  # made anew: old tokens stay closed, old runs are there
    assert (await api.call("GET", "grading_run", token=made["token"])).status_code == 401
    assert (await api.run(run_id))["state"] == "ready"
    await api.data("DELETE", "courses/cs-1")
    assert (await api.call("DELETE", "courses/cs-1")).status_code == 404
    assert (await api.call("GET", "courses/cs-1")).status_code == 404


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"weight": 0}, "$.weight"),
        ({"tokens": ["s3cret with spaces"]}, "$.tokens[0]"),
        ({"tokens": "s3cret"}, "$.tokens"),
        ({"query_tokens": [{"s3cret": 1}]}, "$.query_tokens[0]"),
        ({"query_tokens": ["test-cluster-token"]}, "$.query_tokens[0]"),
        ({"name": "x"}, "$"),
    ],
)
async def test_a_course_that_cannot_be_made_and_no_token_in_the_answer(api: Api, body: Json, path: str) -> None:
    answer = await api.call("PUT", "courses/cs", body)
    assert answer.status_code == 400
    assert answer.json()["data"]["errors"][0]["path"] == path
    assert "s3cret" not in answer.text
    assert "test-cluster-token" not in answer.text


@pytest.mark.parametrize("course_id", ["a.b", "$where", "ü", "a b", "x" * 129, "%00", "a%0a"])
async def test_an_id_that_no_course_can_have(api: Api, course_id: str) -> None:
    assert (await api.call("PUT", f"courses/{course_id}", {})).status_code == 400


async def test_a_token_that_several_courses_have_names_one(api: Api) -> None:
    await api.data("PUT", "courses/one", {"tokens": ["shared", "mine"]})
    await api.data("PUT", "courses/two", {"query_tokens": ["shared"]})
    run_id = await api.create(token="shared")  # only of one may it make runs
    assert (await api.run(run_id))["course"] == "one"
    unclear = await api.call("GET", "grading_run", token="shared")
    assert (unclear.status_code, unclear.json()["data"]["errors"][0]["path"]) == (400, "course")
    for course, runs in (("one", 1), ("two", 0)):
        page = await api.data("GET", "grading_run", token="shared", params={"course": course})
        assert len(page["grading_runs"]) == runs


# --- several processes, and what a request costs ---------------------------------------------------------------------


@pytest.fixture
async def pair(mongo_url: str) -> AsyncIterator[tuple[Api, Api]]:
    """Two servers on one store."""
    async with serving(mongo_url) as one, serving(mongo_url) as two:
        yield one, two


async def test_what_one_process_makes_or_revokes_holds_at_all(pair: tuple[Api, Api]) -> None:
    one, two = pair
    await one.data("PUT", "courses/cs", {"tokens": ["seed"]})
    made = await make_token(one, "admin", course="cs")
    for token in ("seed", made["token"]):  # a token that is new is looked for at once
        async with asyncio.timeout(DEADLINE):
            while (await two.call("GET", "grading_run", token=token)).status_code == 401:
                await two.ping()
    await two.create(params={"course": "cs"})

    await one.data("DELETE", f"tokens/{made['token_id']}")
    revoked = time.monotonic()
    while (await two.call("GET", "grading_run", token=made["token"])).status_code != 401:
        await two.ping()
    assert time.monotonic() - revoked < 10  # two are promised, of a machine that has time
    await two.data("GET", "grading_run", token="seed")


async def test_no_request_asks_the_store_who_its_sender_is(api: Api, courses: tuple[Course, Course]) -> None:
    def looks() -> int:
        return len([name for name in api.store.calls if name.startswith("directory")])

    before, began = looks(), time.monotonic()
    for _ in range(100):
        await api.data("GET", "grading_run", token=courses[0].query)
    for _ in range(100):
        assert (await api.call("GET", "workers", token="wrong")).status_code == 401
    # Once a second by itself, and at most four times a second for tokens that are unknown.
    assert looks() - before <= 5 * (time.monotonic() - began) + 2
