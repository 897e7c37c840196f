"""What operators and their machines call."""

from __future__ import annotations

from broadway_api.handlers.base import ApiHandler


class HealthHandler(ApiHandler):
    """Whether this process can do its work: its loop turns and its store answers."""

    is_public = True

    async def get(self) -> None:
        await self.service.ping()
        self.finish({"status": "success", "data": {"loop_lag_seconds": round(self.monitor.lag, 4), "store": "ok"}})


routes = [(r"/healthz", HealthHandler)]
