"""The description that the API serves, and the page of it: complete, and of our own host alone."""

from __future__ import annotations

import re

import pytest

from tests.api.serving import Api


async def test_the_description_needs_no_token(api: Api) -> None:
    answer = await api.http.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["openapi"].startswith("3.1")


async def test_the_page_loads_what_it_names_from_here(api: Api) -> None:
    page = await api.http.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert "openapi.json" in named
    for address in named:
        if not address.startswith("data:"):
            loaded = await api.http.get(f"/{address}")
            assert loaded.status_code == 200, address
            assert loaded.content


async def test_the_page_allows_no_script_but_ours(api: Api) -> None:
    page = await api.http.get("/docs")
    policy = dict(rule.split(" ", 1) for rule in page.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert not re.search(r"<script>|<style|\son\w+=|style=|https?://", page.text)


@pytest.mark.parametrize("name", ["x.js", "..%2fdocs.html", "%2e%2e", "index.html", "start.js%00"])
async def test_the_page_has_no_other_files(api: Api, name: str) -> None:
    assert (await api.http.get(f"/docs/{name}")).status_code == 404
