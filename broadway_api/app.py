"""The web application: routes and what their handlers share."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tornado.web import Application

from broadway_api.auth import ClusterToken
from broadway_api.handlers import courses, documentation, operations, secrets, workers
from broadway_api.handlers.base import OpenRequests, UnknownPathHandler, log_request
from broadway_api.loop_monitor import LoopMonitor
from broadway_api.openapi.document import document
from broadway_api.openapi.model import Context
from broadway_api.service import Service


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpLimits:
    """What a client may ask of a connection."""

    max_body_bytes: int = 32 * 1024 * 1024
    body_stall_seconds: float = 30
    queue_empty_code: int = 498


def make_app(
    service: Service,
    *,
    token: str,
    monitor: LoopMonitor | None = None,
    requests: OpenRequests | None = None,
    limits: HttpLimits | None = None,
) -> Application:
    """All routes over a service."""
    limits = limits or HttpLimits()
    shared = {
        "service": service,
        "token": ClusterToken(token),
        "monitor": monitor or LoopMonitor(),
        "requests": requests or OpenRequests(),
        "max_body_bytes": limits.max_body_bytes,
        "body_stall_seconds": limits.body_stall_seconds,
        "queue_empty_code": limits.queue_empty_code,
    }
    routes = [*courses.routes, *secrets.routes, *workers.routes, *operations.routes, *documentation.routes]
    description = document(Context(policy=service.policy, queue_empty_code=limits.queue_empty_code))
    return Application(
        [(path, handler, shared) for path, handler in routes],
        default_handler_class=UnknownPathHandler,
        default_handler_args=shared,
        log_function=log_request,
        openapi=json.dumps(description).encode(),
    )
