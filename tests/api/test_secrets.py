"""Secrets over HTTP: set, listed and deleted, and their values never told again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from cryptography.fernet import Fernet

from broadway_api.errors import SecretKeyMismatch
from broadway_api.secret_box import SecretBox
from tests.api.serving import Api, serving

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
