"""What people read of the API: its description, and a page of it that we serve ourselves."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from tornado.web import HTTPError

from broadway_api.handlers import headers
from broadway_api.handlers.base import ApiHandler

#: The page's files: those of Swagger UI, out of a package that carries nothing else, and our own.
ASSETS = {
    "swagger-ui.css": ("openapi_ui_bundles.swagger_ui", "vendor/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("openapi_ui_bundles.swagger_ui", "vendor/swagger-ui-bundle.js", "text/javascript"),
    "start.js": ("broadway_api", "pages/docs.js", "text/javascript"),
}

#: Seconds that a browser may keep a file of the page.
_KEPT = 86_400


class DescriptionHandler(ApiHandler):
    """The description itself."""

    is_public = True

    async def get(self) -> None:
        self.finish(self.settings["openapi"])


class PageHandler(ApiHandler):
    """The description as a page."""

    is_public = True

    async def get(self) -> None:
        for name, value in headers.of_pages().items():
            self.set_header(name, value)
        self.finish(_content("broadway_api", "pages/docs.html"))


class AssetHandler(ApiHandler):
    """A file of that page."""

    is_public = True

    async def get(self, name: str) -> None:
        if name not in ASSETS:
            raise HTTPError(404)
        package, path, media_type = ASSETS[name]
        self.set_header("Content-Type", f"{media_type}; charset=utf-8")
        self.set_header("Cache-Control", f"public, max-age={_KEPT}")
        self.finish(_content(package, path))


@cache
def _content(package: str, path: str) -> bytes:
    return files(package).joinpath(path).read_bytes()


routes = [
    (r"/openapi\.json", DescriptionHandler),
    (r"/docs", PageHandler),
    (r"/docs/([^/]+)", AssetHandler),
]
