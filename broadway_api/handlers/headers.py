"""What every answer tells browsers and caches not to do with it."""

from __future__ import annotations

from collections.abc import Mapping

from tornado.httputil import HTTPHeaders
from tornado.web import RequestHandler

#: For what is not HTML: should a browser take it for a page all the same, nothing in it runs or loads.
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"

#: For pages: our own files only, no inline script or style, and no other site may frame them.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: What the server adds to whatever it sends, beside the date.
EVERYWHERE = {"Server": "Broadway", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}

_USUALLY = {
    "Content-Type": "application/json; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": DATA_POLICY,
}

#: A year, in seconds.
_OVER_HTTPS = {"Strict-Transport-Security": "max-age=31536000"}


class Answering(RequestHandler):
    """A handler whose answers begin with these headers."""

    def clear(self) -> None:
        """Begin the answer anew: as Tornado does, without the headers of its own, which ours would only replace."""
        self._headers = HTTPHeaders()
        self._write_buffer = []
        self._status_code = 200
        self._reason = "OK"
        self.set_default_headers()

    def set_default_headers(self) -> None:
        """The headers that an answer has unless its handler says otherwise."""
        for name, value in _USUALLY.items():
            self._headers[name] = value
        if self.settings["proxies"].is_secure(self.request):
            for name, value in _OVER_HTTPS.items():
                self._headers[name] = value


def of_pages() -> Mapping[str, str]:
    """What a page has in their place."""
    return {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": PAGE_POLICY}
