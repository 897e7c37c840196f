"""From headers to what their sender shows of itself."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders

from broadway_api.auth import presented_token, worker_id

TOKEN = "correct-horse"


@pytest.mark.parametrize("header", [TOKEN, f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN}"])
def test_the_token_is_taken_alone_or_as_bearer(header: str) -> None:
    assert presented_token(header) == TOKEN


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN.upper(), f"{TOKEN} "])
def test_anything_else_is_not_the_token(header: str | None) -> None:
    assert presented_token(header) != TOKEN


@pytest.mark.parametrize("name", ["worker_id", "Worker-Id", "WORKER_ID", "worker-id"])
def test_a_worker_id_has_two_names(name: str) -> None:
    assert worker_id(HTTPHeaders({name: "abc"})) == "abc"


def test_no_worker_id_is_none() -> None:
    assert not worker_id(HTTPHeaders())
