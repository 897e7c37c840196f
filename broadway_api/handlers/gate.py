"""Lets requests in by their tokens."""

from __future__ import annotations

import math

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError

from broadway_api import auth
from broadway_api.access import Access
from broadway_api.failures import Failures
from broadway_api.handlers.proxies import Proxies
from broadway_api.tenants import Principal


class TooManyFailures(HTTPError):
    """The sender's address has shown too many tokens that open nothing."""

    def __init__(self, wait: float) -> None:
        self.retry_after = math.ceil(wait)
        super().__init__(429)


class Gate:
    """Knows tokens, and counts those that it does not know by the address that they come from."""

    def __init__(self, access: Access, failures: Failures, proxies: Proxies) -> None:
        self.proxies = proxies
        self._access = access
        self._failures = failures

    async def enter(self, request: HTTPServerRequest) -> tuple[Principal, ...]:
        """Whoever the request's token stands for: one, or one for each course. Raises HTTPError, 401 or 429."""
        return await self.admit(auth.presented_token(request.headers.get("Authorization")), request)

    async def admit(self, token: str, request: HTTPServerRequest) -> tuple[Principal, ...]:
        """The same for a token that stands elsewhere in the request."""
        principals = await self._access.identify(token)
        if principals:
            return principals
        wait = self._failures.note(self.proxies.client_address(request))
        raise HTTPError(401) if wait is None else TooManyFailures(wait)
