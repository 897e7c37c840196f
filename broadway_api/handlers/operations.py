"""What operators and their machines call."""

from __future__ import annotations

from broadway_api.access import OPERATOR
from broadway_api.handlers.base import ApiHandler
from broadway_api.metrics import CONTENT_TYPE


class HealthHandler(ApiHandler):
    """Whether this process can do its work: its loop turns and its store answers. Details are the operator's."""

    is_public = True

    async def get(self) -> None:
        with_token = "Authorization" in self.request.headers
        is_operator = with_token and OPERATOR in await self.gate.enter(self.request)
        await self.service.ping()
        details = {"loop_lag_seconds": round(self.monitor.lag, 4)} if is_operator else {}
        self.succeed({"store": "ok", **details})


class ReadinessHandler(ApiHandler):
    """Whether this process is to be sent requests: it can do its work, and is not about to end."""

    is_public = True

    async def get(self) -> None:
        await self.service.check_ready()
        self.succeed({"store": "ok"})


class MetricsHandler(ApiHandler):
    """Prometheus's view of this process and its cluster: an operator's, unless the operator opened it to everybody."""

    async def check_head(self) -> None:
        if not self.metrics_are_open:
            await super().check_head()

    async def get(self) -> None:
        text = await self.service.monitoring.scrape()
        self.set_header("Content-Type", CONTENT_TYPE)
        await self.finish(text)


routes = [(r"/healthz", HealthHandler), (r"/readyz", ReadinessHandler), (r"/metrics", MetricsHandler)]
