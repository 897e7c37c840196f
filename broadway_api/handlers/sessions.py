"""What the dashboard calls before and after everything else: log in, ask who one is, log out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tornado.web import HTTPError

from broadway_api import wire
from broadway_api.errors import Fault, Forbidden, InvalidInput
from broadway_api.handlers.base import ApiHandler
from broadway_api.handlers.gate import COOKIE, NotOurPage, comes_from_elsewhere
from broadway_api.schemas import LOGIN
from broadway_api.sessions import LIFETIME, Session, may_have_session
from broadway_api.validation import Validator

#: Of the cookie: no script reads it, no other site's page has it sent.
_ATTRIBUTES: Mapping[str, Any] = {"path": "/", "httponly": True, "samesite": "Strict"}

_login = Validator(LOGIN, mask="what was sent")


class SessionHandler(ApiHandler):
    """The session of a browser, in a cookie that no script can read and no other site can have sent."""

    is_public = True
    largest_body = 65_536

    async def post(self) -> None:
        if comes_from_elsewhere(self.request):
            raise NotOurPage
        data = await self.json_body(_login)
        if data is None:
            raise InvalidInput([Fault(path="$", message='the body is empty; send {"token": "…"}')])
        token = data["token"].strip()
        principals = await self.gate.admit(token, self.request)
        if not may_have_session(principals):
            raise Forbidden(principals[0].role)
        value = self.service.sessions.begin(token)
        session = await self.service.sessions.resume(value)
        if session is None:  # the token was revoked this very moment
            raise HTTPError(401)
        secure = self.gate.proxies.is_secure(self.request)
        self.set_cookie(COOKIE, value, max_age=int(LIFETIME.total_seconds()), secure=secure, **_ATTRIBUTES)
        self._show(session)

    async def get(self) -> None:
        if COOKIE not in self.request.cookies:
            raise HTTPError(401)
        self._show(await self.gate.enter_by_session(self.request))

    async def delete(self) -> None:
        self.clear_cookie(COOKIE, **_ATTRIBUTES)
        self.succeed({})

    def _show(self, session: Session) -> None:
        self.succeed(wire.session_to_json(session.principals, session.expires_at, session.proof))


routes = [(r"/api/v1/session", SessionHandler)]
