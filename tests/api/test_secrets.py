"""Secrets over HTTP: set, listed and deleted, and their values never told again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from cryptography.fernet import Fernet

from broadway_api.errors import SecretKeyMismatch
from broadway_api.secret_box import SecretBox
from tests.api.serving import Api, run_config, serving

VALUE = "correct-horse-battery-staple"


async def test_a_secret_is_set_listed_changed_and_deleted(any_api: Api) -> None:
    api = any_api
    assert await api.data("GET", "secrets") == {"secrets": []}
    first = await api.data("PUT", "secrets/REGISTRY", {"value": VALUE})
    await api.data("PUT", "secrets/A.b-1", {"value": VALUE})
    listed = await api.call("GET", "secrets")
    assert [each["name"] for each in listed.json()["data"]["secrets"]] == ["A.b-1", "REGISTRY"]
    assert listed.json()["data"]["secrets"][1] == first
    assert VALUE not in listed.text
    await api.data("DELETE", "secrets/REGISTRY")
    assert (await api.call("DELETE", "secrets/REGISTRY")).status_code == 404
    assert (await api.call("GET", "secrets/REGISTRY")).status_code == 405


@pytest.mark.parametrize(
    ("name", "body", "path"),
    [
        ("OK", None, "$"),
        ("OK", [], "$"),
        ("OK", {}, "$"),
        ("OK", {"value": 1234567}, "$.value"),
        ("OK", {"value": ["hunter2"]}, "$.value"),
        ("OK", {"value": "abc"}, "$.value"),
        ("OK", {"value": " abc \n"}, "$.value"),
        ("OK", {"value": "x\0" * 4}, "$.value"),
        ("OK", {"value": "é" * 8_193}, "$.value"),
        ("OK", {"value": VALUE, "course": "x"}, "$"),
        (".hidden", {"value": VALUE}, "name"),
        ("$where", {"value": VALUE}, "name"),
        ("x" * 101, {"value": VALUE}, "name"),
    ],
)
async def test_a_bad_secret_is_refused_with_the_place_and_not_quoted(api: Api, name: str, body: Any, path: str) -> None:
    answer = await api.call("PUT", f"secrets/{name}", body)
    assert answer.status_code == 400
    assert [fault["path"] for fault in answer.json()["data"]["errors"]] == [path]
    assert not any(text in answer.text for text in ("hunter2", "1234567", VALUE, "é" * 100))


async def test_secrets_need_the_token(api: Api) -> None:
    for method, path in (("GET", "secrets"), ("PUT", "secrets/A"), ("DELETE", "secrets/A"), ("POST", "reseal_secrets")):
        assert (await api.call(method, path, {"value": VALUE}, token="wrong")).status_code == 401


async def test_the_store_has_no_value_in_the_clear(sqlite_url: str) -> None:
    async with serving(sqlite_url) as api:
        await api.data("PUT", "secrets/A", {"value": VALUE})
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as db:
        assert VALUE not in "\n".join(db.iterdump())


async def test_a_wrong_key_keeps_the_api_from_starting(any_store_url: str) -> None:
    async with serving(any_store_url) as api:
        await api.data("PUT", "secrets/A", {"value": VALUE})
    with pytest.raises(SecretKeyMismatch, match="--secret-key-file"):
        async with serving(any_store_url):
            pass


async def test_two_keys_never_get_into_one_store(mongo_url: str) -> None:
    """Two APIs that were started before there was any secret to try their keys on."""
    async with serving(mongo_url) as one, serving(mongo_url) as other:
        await one.data("PUT", "secrets/A", {"value": VALUE})
        refused = await other.call("PUT", "secrets/B", {"value": VALUE})
        assert refused.status_code == 503
        assert "--secret-key-file" in refused.json()["message"]
        assert [each["name"] for each in (await other.data("GET", "secrets"))["secrets"]] == ["A"]


async def test_the_first_key_seals_everything_anew(any_store_url: str) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    async with serving(any_store_url, secret_box=SecretBox([old])) as api:
        for name in ("A", "B"):
            await api.data("PUT", f"secrets/{name}", {"value": VALUE})
    async with serving(any_store_url, secret_box=SecretBox([new, old])) as api:
        assert await api.data("POST", "reseal_secrets") == {"secrets": 2}
    async with serving(any_store_url, secret_box=SecretBox([new])) as api:
        assert len((await api.data("GET", "secrets"))["secrets"]) == 2


def with_secret(**changes: Any) -> dict[str, Any]:
    stages = [{"image": "fetch", "env": {"TOKEN": {"secret": "key"}, "PLAIN": "x"}}, {"image": "student"}]
    return run_config() | {"student_pipeline": stages} | changes


async def test_a_run_that_names_no_known_secret_is_refused_with_the_place(any_api: Api) -> None:
    refused = await any_api.call("POST", "grading_run", with_secret())
    assert refused.status_code == 400
    assert [fault["path"] for fault in refused.json()["data"]["errors"]] == ["$.student_pipeline[0].env.TOKEN"]


async def test_a_secret_goes_to_its_stage_and_nowhere_else(any_api: Api) -> None:
    api = any_api
    await api.data("PUT", "secrets/key", {"value": "the first value"})
    run_id = await api.start(with_secret(students=[{"A": "1"}, {"TOKEN": "own"}]))
    await api.data("PUT", "secrets/key", {"value": VALUE})
    worker = await api.register()
    first = await api.claim(worker)
    assert first["stages"][0]["env"]["TOKEN"] == VALUE  # as it is at hand-out
    assert first["stages"][0]["secrets"] == ["TOKEN"]
    assert "TOKEN" not in first["stages"][1]["env"]
    assert "secrets" not in first["stages"][1]
    second = (await api.claim(worker, params={"slots": 1, "holding": first["job_id"]}))["jobs"][0]
    assert second["stages"][0]["env"]["TOKEN"] == "own"
    assert "secrets" not in second["stages"][0]
    for path in (f"grading_run/{run_id}?jobs=all", f"grading_job/{first['job_id']}", "secrets", "grading_run"):
        assert VALUE not in (await api.call("GET", path)).text
    shown = await api.data("GET", f"grading_job/{first['job_id']}")
    assert shown["pipeline"][0]["env"] == {"TOKEN": {"secret": "key"}, "PLAIN": "x"}


async def test_a_job_whose_secret_is_gone_fails_once_and_can_be_retried(any_api: Api) -> None:
    api = any_api
    await api.data("PUT", "secrets/key", {"value": VALUE})
    run_id = await api.start(with_secret(students=[{}, {}]))
    await api.data("DELETE", "secrets/key")
    worker = await api.register()
    assert (await api.call("GET", "grading_job", worker=worker)).status_code == 498
    status = await api.run(run_id, jobs="all")
    assert (status["state"], status["reasons"]) == ("finished", {"secret_unavailable": 2})
    job = await api.data("GET", f"grading_job/{status['jobs'][0]['job_id']}")
    assert "key" in job["info"][0]["message"]
    await api.data("PUT", "secrets/key", {"value": VALUE})
    assert (await api.data("POST", f"grading_run/{run_id}/retry"))["jobs"] == 2
    assert (await api.claim(worker))["stages"][0]["env"]["TOKEN"] == VALUE
