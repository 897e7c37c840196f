"""A real Chromium at a real API. A fault on the console, a breach of the content policy or a word to another host fails
the test that caused it.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Request, async_playwright, expect

from tests.api.serving import TOKEN, Api, serving

#: Milliseconds that anything on a page may take: the machine may be busy.
PATIENCE = 30_000

expect.set_options(timeout=PATIENCE)


@pytest.fixture
async def api(sqlite_url: str) -> AsyncIterator[Api]:
    """An API over an embedded store."""
    async with serving(sqlite_url) as running:
        yield running


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium, which `scripts/services.sh` installs."""
    program = shutil.which("chromium")
    assert program, "no chromium: run scripts/services.sh"
    async with async_playwright() as playwright:
        # Tests may run as root, whose Chromium has no sandbox; it meets no other page than ours.
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        await browser.close()


class Dashboard:
    """The dashboard of an API in windows of a browser, each of them watched for faults."""

    def __init__(self, browser: Browser, api: Api) -> None:
        self._browser = browser
        self._address = f"http://127.0.0.1:{api.port}/"
        self.faults: list[str] = []

    @asynccontextmanager
    async def window(self, *, width: int = 1440, height: int = 900, **settings: Any) -> AsyncIterator[Page]:
        """A new window that shows the page, with no session."""
        context = await self._browser.new_context(viewport={"width": width, "height": height}, **settings)
        context.set_default_timeout(PATIENCE)
        page = await context.new_page()
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", self._check_host)
        await page.goto(self._address)
        yield page
        await context.close()

    def _note(self, kind: str, text: str) -> None:
        # To ask without a session whether there is one is how the page begins.
        if kind in ("error", "warning") and "401 (Unauthorized)" not in text:
            self.faults.append(f"{kind}: {text}")

    def _check_host(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in ("blob", "data") and not request.url.startswith(self._address):
            self.faults.append(f"it asked {request.url}")


@pytest.fixture
async def dashboard(chromium: Browser, api: Api) -> AsyncIterator[Dashboard]:
    """The dashboard; what went wrong in it fails the test in the end."""
    watched = Dashboard(chromium, api)
    yield watched
    assert watched.faults == []


async def log_in(page: Page, token: str = TOKEN) -> None:
    """Through the form, as people do."""
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("button", name="Log out")).to_be_visible()
