"""Lets requests in by their tokens."""

from __future__ import annotations

import hmac
import math

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError

from broadway_api import auth
from broadway_api.access import Access
from broadway_api.failures import Failures
from broadway_api.handlers.proxies import Proxies
from broadway_api.sessions import Session, Sessions
from broadway_api.tenants import Principal

#: The cookie of a session.
COOKIE = "broadway_session"

#: Where a page shows that a request is its own.
PROOF_HEADER = "X-Broadway-Proof"

_READING = ("GET", "HEAD")


class NotOurPage(HTTPError):
    """A browser sent this, with a session's cookie, and our own page did not ask it to."""

    def __init__(self) -> None:
        super().__init__(403)


def comes_from_elsewhere(request: HTTPServerRequest) -> bool:
    """Whether a browser says that another site's page made it send this. Programs say nothing of the kind."""
    return request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")


class TooManyFailures(HTTPError):
    """The sender's address has shown too many tokens that open nothing."""

    def __init__(self, wait: float) -> None:
        self.retry_after = math.ceil(wait)
        super().__init__(429)


class Gate:
    """Knows tokens, and counts those that it does not know by the address that they come from."""

    def __init__(self, access: Access, sessions: Sessions, failures: Failures, proxies: Proxies) -> None:
        self.proxies = proxies
        self._access = access
        self._sessions = sessions
        self._failures = failures

    async def enter(self, request: HTTPServerRequest) -> tuple[Principal, ...]:
        """Whoever the request's token stands for: one, or one for each course. Raises HTTPError, 401 or 429."""
        return await self.admit(auth.presented_token(request.headers.get("Authorization")), request)

    async def enter_by_session(self, request: HTTPServerRequest) -> Session:
        """The session of a request that has a page's cookie in place of a token.

        A browser sends a cookie whoever made it send the request, so one that may change something also shows what only
        our own page knows. A cookie of no session is no guess at a token, and is not counted as one. Raises HTTPError,
        401 or 403.
        """
        session = await self._sessions.resume(request.cookies[COOKIE].value)
        if session is None:
            raise HTTPError(401)
        if request.method not in _READING:
            shown = request.headers.get(PROOF_HEADER, "")
            if comes_from_elsewhere(request) or not hmac.compare_digest(shown.encode(), session.proof.encode()):
                raise NotOurPage
        return session

    async def admit(self, token: str, request: HTTPServerRequest) -> tuple[Principal, ...]:
        """The same for a token that stands elsewhere in the request."""
        principals = await self._access.identify(token)
        if principals:
            return principals
        wait = self._failures.note(self.proxies.client_address(request))
        raise HTTPError(401) if wait is None else TooManyFailures(wait)
