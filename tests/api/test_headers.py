"""What every answer tells browsers, and how wrong tokens are slowed down, as it shows on the wire."""

from __future__ import annotations

import httpx
import pytest

from broadway_api.handlers.shared import HttpLimits
from tests.api.serving import TOKEN, Api, serving

UNKNOWN = "0123456789abcdef01234567"

ANSWERS = [
    ("GET", "/healthz", None, 200),
    ("GET", "/openapi.json", None, 200),
    ("GET", "/api/v1/workers", TOKEN, 200),
    ("GET", f"/api/v1/grading_run/{UNKNOWN}", TOKEN, 404),
    ("GET", "/api/v1/workers", "wrong", 401),
    ("PATCH", "/api/v1/workers", TOKEN, 405),
    ("GET", "/nowhere", None, 404),
    ("GET", "/docs", None, 200),
    ("GET", "/", None, 200),
]


@pytest.mark.parametrize(("method", "path", "token", "status"), ANSWERS)
async def test_every_answer_has_its_security_headers(
    api: Api, method: str, path: str, token: str | None, status: int
) -> None:
    answer = await api.http.request(method, path, headers={"Authorization": token} if token else {})
    assert answer.status_code == status
    headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert ("script-src 'self'" in policy) == (path in ("/docs", "/"))
    assert "Strict-Transport-Security" not in headers  # which means nothing over plain HTTP


async def test_wrong_tokens_are_slowed_down_and_right_ones_never(sqlite_url: str) -> None:
    async with serving(sqlite_url, limits=HttpLimits(auth_failures_per_minute=5)) as api:
        answers = [await api.call("GET", "workers", token=f"wrong{number}") for number in range(8)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 12
        assert answers[-1].json()["status"] == "fail"
        await api.data("GET", "workers")
        assert (await api.call("GET", "workers", token=None)).status_code == 429
        forwarded = {"X-Forwarded-For": "192.0.2.1"}  # by nobody whose word is taken
        assert (await api.call("GET", "workers", token="wrong", headers=forwarded)).status_code == 429


async def test_behind_a_trusted_proxy_each_client_counts_for_itself(sqlite_url: str) -> None:
    limits = HttpLimits(auth_failures_per_minute=1, trusted_proxies=("127.0.0.1",))
    async with serving(sqlite_url, limits=limits) as api:

        async def ask(client: str, scheme: str = "http") -> httpx.Response:
            headers = {"X-Forwarded-For": client, "X-Forwarded-Proto": scheme}
            return await api.call("GET", "workers", token="wrong", headers=headers)

        assert [(await ask("192.0.2.1")).status_code for _ in range(2)] == [401, 429]
        assert (await ask("192.0.2.2")).status_code == 401
        assert (await ask("192.0.2.3, 192.0.2.2")).status_code == 429  # what the client made up does not help it
        assert "max-age" in (await ask("192.0.2.2", "https")).headers["Strict-Transport-Security"]
        worker = await api.register()
        named = await api.data("GET", "worker_register", headers={"X-Forwarded-For": "192.0.2.9"})
        hosts = {each["worker_id"]: each["hostname"] for each in (await api.data("GET", "workers"))["workers"]}
        assert hosts == {worker: "127.0.0.1", named["worker_id"]: "192.0.2.9"}
