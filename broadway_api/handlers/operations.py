"""What operators and their machines call."""

from __future__ import annotations

from broadway_api.access import OPERATOR
from broadway_api.handlers.base import ApiHandler


class HealthHandler(ApiHandler):
    """Whether this process can do its work: its loop turns and its store answers. Details are the operator's."""

    is_public = True

    async def get(self) -> None:
        with_token = "Authorization" in self.request.headers
        is_operator = with_token and OPERATOR in await self.gate.enter(self.request)
        await self.service.ping()
        details = {"loop_lag_seconds": round(self.monitor.lag, 4)} if is_operator else {}
        self.succeed({"store": "ok", **details})


routes = [(r"/healthz", HealthHandler)]
