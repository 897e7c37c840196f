"""What every answer tells browsers and caches not to do with it."""

from __future__ import annotations

from collections.abc import Mapping

#: For what is not HTML: should a browser take it for a page all the same, nothing in it runs or loads.
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"

#: For pages: our own files only, no inline script or style, and no other site may frame them.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_ALWAYS = {
    "Server": "Broadway",
    "Content-Type": "application/json; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": DATA_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

#: A year, in seconds.
_OVER_HTTPS = {"Strict-Transport-Security": "max-age=31536000"}


def of_answers(*, secure: bool) -> Mapping[str, str]:
    """The headers that an answer has unless its handler says otherwise; `secure`: the client speaks HTTPS."""
    return _ALWAYS | _OVER_HTTPS if secure else _ALWAYS


def of_pages() -> Mapping[str, str]:
    """What a page has in their place."""
    return {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": PAGE_POLICY}
