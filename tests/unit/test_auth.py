"""From headers to whoever sent them."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders

from broadway_api.auth import ClusterToken, worker_id

TOKEN = "correct-horse"


@pytest.mark.parametrize("header", [TOKEN, f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN}"])
def test_the_token_is_taken_alone_or_as_bearer(header: str) -> None:
    assert ClusterToken(TOKEN).allows(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "wrong",
        TOKEN[:-1],
        TOKEN + "x",
        f"Basic {TOKEN}",
        TOKEN.upper(),
        "\xff",
        "\udcff",
    ],
)
def test_anything_else_is_refused(header: str | None) -> None:
    assert not ClusterToken(TOKEN).allows(header)


def test_the_token_itself_is_not_kept() -> None:
    guard = ClusterToken(TOKEN)
    assert TOKEN not in repr(vars(guard))


@pytest.mark.parametrize("name", ["worker_id", "Worker-Id", "WORKER_ID", "worker-id"])
def test_a_worker_id_has_two_names(name: str) -> None:
    assert worker_id(HTTPHeaders({name: "abc"})) == "abc"


def test_no_worker_id_is_none() -> None:
    assert not worker_id(HTTPHeaders())
