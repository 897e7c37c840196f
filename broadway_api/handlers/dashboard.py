"""The dashboard: one page and its files, as they stand in `pages/dashboard/`. All that it shows it asks the API for."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from tornado.web import HTTPError

from broadway_api.handlers import headers
from broadway_api.handlers.base import ApiHandler

_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class PageHandler(ApiHandler):
    """The page. Which of its views is shown stands in the fragment, which the browser keeps to itself."""

    is_public = True

    async def get(self) -> None:
        for name, value in headers.of_pages().items():
            self.set_header(name, value)
        self.finish(_assets()["index.html"])


class AssetHandler(ApiHandler):
    """A script or style of it. Browsers ask each time whether it has changed: all its files belong together."""

    is_public = True

    async def get(self, name: str) -> None:
        media_type = _MEDIA_TYPES.get(name.rpartition(".")[2])
        if media_type is None or name not in _assets():
            raise HTTPError(404)
        content = _assets()[name]
        self.set_header("Content-Type", f"{media_type}; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Etag", f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.finish(content)


@cache
def _assets() -> dict[str, bytes]:
    """The files by name: nothing else can be asked for."""
    return {file.name: file.read_bytes() for file in files("broadway_api").joinpath("pages/dashboard").iterdir()}


routes = [
    (r"/", PageHandler),
    (r"/dashboard/([^/]+)", AssetHandler),
]
