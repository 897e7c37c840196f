"""Browsers: a token becomes a cookie, which opens what the token does, and nothing from another site's page."""

from __future__ import annotations

import base64

import pytest

from tests.api.serving import TOKEN, Api, run_config, serving

COOKIE = "broadway_session"
Headers = dict[str, str]


async def log_in(api: Api, token: str = TOKEN) -> tuple[Headers, str]:
    """A session's cookie as a header, and its proof. The client's own jar stays empty."""
    answer = await api.call("POST", "session", {"token": token}, token=None)
    assert answer.status_code == 200, answer.text
    api.http.cookies.clear()
    value = answer.cookies[COOKIE]
    return {"Cookie": f"{COOKIE}={value}"}, str(answer.json()["data"]["proof"])


async def made(api: Api, role: str, course: str | None = None) -> dict[str, str]:
    if course:
        await api.data("PUT", f"courses/{course}", {})
    return dict(await api.data("POST", "tokens", {"role": role} | ({"course": course} if course else {})))


async def test_the_cookie_is_out_of_the_reach_of_scripts_and_other_sites(api: Api) -> None:
    answer = await api.call("POST", "session", {"token": TOKEN}, token=None)
    attributes = answer.headers["Set-Cookie"]
    assert "HttpOnly" in attributes
    assert "SameSite=Strict" in attributes
    assert "Secure" not in attributes  # over plain HTTP it would never come back
    assert TOKEN not in attributes
    assert TOKEN not in base64.urlsafe_b64decode(answer.cookies[COOKIE].strip('"') + "==").decode(errors="replace")


async def test_a_session_reads_what_its_token_does(api: Api) -> None:
    theirs = await made(api, "query", "cs101")
    own = await api.create(run_config(), params={"course": "cs101"})
    others = await api.create()
    cookie, _ = await log_in(api, theirs["token"])

    async def status(path: str) -> int:
        return (await api.call("GET", path, token=None, headers=cookie)).status_code

    listed = await api.data("GET", "overview/runs", token=None, headers=cookie)
    assert [run["grading_run_id"] for run in listed["grading_runs"]] == [own]
    assert await status(f"grading_run/{own}/failures") == 200
    for path in ("", "/failures", "/jobs", "/statistics", "/events"):
        assert await status(f"grading_run/{others}{path}") == 404
    assert await status("overview/workers") == 403
    assert await status("overview/workers/events") == 403
    said = await api.data("GET", "session", token=None, headers=cookie)
    assert (said["role"], said["courses"]) == ("query", ["cs101"])


async def test_a_session_changes_things_from_its_own_page_only(api: Api) -> None:
    run = await api.start()
    cookie, proof = await log_in(api)
    cancel = f"grading_run/{run}/cancel"
    own = {"X-Broadway-Proof": proof}
    for headers in ({}, {"X-Broadway-Proof": "guess"}, own | {"Sec-Fetch-Site": "same-site"}):
        assert (await api.call("POST", cancel, token=None, headers=cookie | headers)).status_code == 403
    _, proof_of_another = await log_in(api)
    stolen = {"X-Broadway-Proof": proof_of_another}
    assert (await api.call("POST", cancel, token=None, headers=cookie | stolen)).status_code == 403
    assert (await api.run(run))["state"] == "students"
    assert (await api.call("POST", cancel, token=None, headers=cookie | own)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "worker_register"),
        ("GET", "grading_job"),
        ("POST", "heartbeat"),
        ("POST", "grading_run"),
        ("GET", "tokens"),
        ("POST", "tokens"),
        ("GET", "secrets"),
        ("DELETE", "worker/0123456789abcdef01234567"),
    ],
)
async def test_what_no_page_needs_no_session_opens(api: Api, method: str, path: str) -> None:
    cookie, proof = await log_in(api)
    answer = await api.call(method, path, token=None, headers=cookie | {"X-Broadway-Proof": proof})
    assert answer.status_code == 401


async def test_a_session_ends_with_its_token(api: Api) -> None:
    token = await made(api, "admin", "cs101")
    cookie, _ = await log_in(api, token["token"])
    await api.data("DELETE", f"tokens/{token['token_id']}")
    assert (await api.call("GET", "session", token=None, headers=cookie)).status_code == 401
    assert (await api.call("GET", "overview/runs", token=None, headers=cookie)).status_code == 401


async def test_graders_and_strangers_get_no_session(api: Api) -> None:
    worker = await made(api, "worker")
    assert (await api.call("POST", "session", {"token": worker["token"]}, token=None)).status_code == 403
    assert (await api.call("POST", "session", {"token": "wrong"}, token=None)).status_code == 401
    forged = {"Sec-Fetch-Site": "cross-site"}
    assert (await api.call("POST", "session", {"token": TOKEN}, token=None, headers=forged)).status_code == 403
    for value in ("", "x", TOKEN, "gAAAAABo"):
        answer = await api.call("GET", "overview/runs", token=None, headers={"Cookie": f"{COOKIE}={value}"})
        assert answer.status_code == 401


async def test_logging_out_takes_the_cookie_away(api: Api) -> None:
    answer = await api.call("DELETE", "session", token=None)
    assert answer.headers["Set-Cookie"].startswith(f'{COOKIE}="";')
    assert "expires=" in answer.headers["Set-Cookie"]


async def test_another_api_process_without_the_key_knows_no_session(sqlite_url: str) -> None:
    async with serving(sqlite_url) as api:
        cookie, _ = await log_in(api)
    async with serving(sqlite_url) as api:
        assert (await api.call("GET", "session", token=None, headers=cookie)).status_code == 401
