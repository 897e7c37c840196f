"""Whatever is sent, it is answered in the envelope, and never as our fault. The `quiet_log` fixture reads the log."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.serving import Api, sample

#: One API serves all examples of a test: what earlier ones left there is part of what it must bear.
shared_api = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**40, 1e308, -0.0, 1.0])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["", "$", "$$", "$A", "\0", "\ud800", "é" * 300, "x" * 70_000, "0" * 24]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for name, part in inner for place in places(part, (*at, name)))]


def changed(value: Any, place: tuple[Any, ...], to: Any) -> Any:
    """The value with something else at one place."""
    if not place:
        return to
    value = copy.deepcopy(value)
    within = value
    for name in place[:-1]:
        within = within[name]
    within[place[-1]] = to
    return value


@st.composite
def broken(draw: st.DrawFn, name: str) -> Any:
    """A sample, broken at one to three places."""
    value = sample(name)
    for _ in range(draw(st.integers(1, 3))):
        value = changed(value, draw(st.sampled_from(places(value))), draw(values))
    return value


def check(answer: httpx.Response) -> None:
    """Refused or taken, never failed at."""
    assert answer.status_code < 500, answer.text
    body = answer.json()
    assert body["status"] == ("success" if answer.is_success else "fail")
    assert answer.is_success or body["data"]["message"]


@shared_api
@given(body=st.binary(max_size=200) | broken("run_config").map(lambda value: json.dumps(value).encode()))
async def test_run_configs(api: Api, body: bytes) -> None:
    answer = await api.call("POST", "grading_run", body)
    check(answer)
    if answer.is_success:  # and what was taken can be started, handed out and shown
        run_id = answer.json()["data"]["grading_run_id"]
        check(await api.call("POST", f"grading_run/{run_id}"))
        worker = await api.register()
        job = (await api.claim(worker, params={"slots": 1}))["jobs"][0]
        check(await api.call("GET", f"grading_job/{job['job_id']}"))
        check(await api.call("GET", f"grading_run/{run_id}", params={"jobs": "all"}))
        await api.report(worker, job)


@shared_api
@given(data=st.data(), name=st.sampled_from(["result_request", "result_request_failed", "result_request_wrapped"]))
async def test_results(api: Api, data: st.DataObject, name: str) -> None:
    worker = await api.register()
    run_id = await api.start()
    job = (await api.claim(worker, params={"slots": 1}))["jobs"][0]
    body = data.draw(broken(name) | values)
    answer = await api.call("POST", f"grading_job/{job['job_id']}", body, worker=worker)
    check(answer)
    for path in (f"grading_job/{job['job_id']}", f"grading_job/{job['job_id']}/log", f"grading_run/{run_id}"):
        check(await api.call("GET", path, params={"jobs": "all"}))
    # What one worker failed another has first; what was refused is still its own.
    holder = await api.register() if answer.is_success else worker
    while (await api.run(run_id))["counts"]["succeeded"] + (await api.run(run_id))["counts"]["failed"] == 0:
        await api.report(holder, await api.claim(holder))


@shared_api
@given(name=st.sampled_from(["register_request", "heartbeat_request"]), data=st.data())
async def test_workers_bodies(api: Api, name: str, data: st.DataObject) -> None:
    worker = await api.register()
    path = {"register_request": "worker_register", "heartbeat_request": "heartbeat"}[name]
    check(await api.call("POST", path, data.draw(broken(name) | st.binary(max_size=50)), worker=worker))
    check(await api.call("GET", "workers"))


words = st.text(max_size=30) | st.sampled_from(["0", "-1", "1e3", "9" * 30, "0" * 24, "all", "ready", ",", "%", "\0"])


@shared_api
@given(
    path=st.sampled_from(["grading_run", "RUN", "JOB", "JOB/log", "grading_job", "workers", "grader_register"]),
    query=st.dictionaries(
        st.sampled_from(["state", "course", "limit", "after", "jobs", "stage", "slots", "holding"]), words
    ),
    raw=st.binary(max_size=10),
)
async def test_queries(api: Api, path: str, query: dict[str, str], raw: bytes) -> None:
    worker = await api.register()
    if "test" not in vars(api):
        run_id = await api.start()
        vars(api)["test"] = run_id, (await api.run(run_id, jobs="all"))["jobs"][0]["job_id"]
    run_id, job_id = vars(api)["test"]
    path = path.replace("RUN", f"grading_run/{run_id}").replace("JOB", f"grading_job/{job_id}")
    check(await api.call("GET", path, params=query, worker=worker))
    check(await api.call("GET", f"{path}?limit={''.join(f'%{byte:02x}' for byte in raw)}", worker=worker))
    await api.call("DELETE", f"worker/{worker}")


visible = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


@shared_api
@given(
    headers=st.dictionaries(
        st.sampled_from(["Authorization", "worker_id", "Worker-Id", "Prefer", "Idempotency-Key", "Content-Type"]),
        visible | st.sampled_from(["wait=", "wait=0, wait=9", "Bearer", "0" * 24, "é", "x" * 5_000]),
    ),
    path=st.sampled_from(["grading_run", "grading_job", "heartbeat", "worker_register", "nowhere"]),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
)
async def test_headers(api: Api, headers: dict[str, str], path: str, method: str) -> None:
    encoded = {name.encode(): value.strip().encode() for name, value in headers.items()}
    authorized = {b"Authorization": b"test-cluster-token"} | encoded
    for sent in (encoded, authorized):
        check(await api.http.request(method, f"/api/v1/{path}", headers=sent))


@shared_api
@given(path=st.text(min_size=1, max_size=30))
async def test_paths(api: Api, path: str) -> None:
    try:
        url = httpx.URL(f"http://127.0.0.1:{api.port}").copy_with(path="/" + path)
    except (httpx.InvalidURL, UnicodeEncodeError):
        return
    answer = await api.http.get(url, headers={"Authorization": "test-cluster-token"})
    assert answer.status_code in (200, 400, 404, 405)
    assert answer.json()["status"] in ("success", "fail")


@pytest.mark.parametrize("text", ["\0", "a\0b", "é", "\u2028", "\U0001f600", "x" * 500_000])
async def test_any_text_of_a_program_is_kept_as_it_was(any_api: Api, text: str) -> None:
    worker = await any_api.register()
    await any_api.start()
    job = await any_api.claim(worker)
    assert (await any_api.report(worker, job, info=[{"stdout": text, "note": text[:50]}])).status_code == 200
    log = await any_api.data("GET", f"grading_job/{job['job_id']}/log")
    assert log["stages"][0]["stdout"] == text
    assert (await any_api.data("GET", f"grading_job/{job['job_id']}"))["info"][0]["note"] == text[:50]


@pytest.mark.parametrize("name", ["a.b", "$where", "", "a\0b", "_id", "x" * 2_000])
async def test_any_name_in_an_info_is_kept(any_api: Api, name: str) -> None:
    worker = await any_api.register()
    await any_api.start()
    job = await any_api.claim(worker)
    assert (await any_api.report(worker, job, info=[{name: 10**30}])).status_code == 200
    assert (await any_api.data("GET", f"grading_job/{job['job_id']}"))["info"] == [{name: 10**30}]
