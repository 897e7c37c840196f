"""The web application: routes and what their handlers share."""

from __future__ import annotations

import json

from broadway_api.failures import Failures
from broadway_api.handlers import (
    courses,
    dashboard,
    documentation,
    operations,
    output,
    secrets,
    sessions,
    tenants,
    views,
    workers,
)
from broadway_api.handlers.base import UnknownPathHandler, log_request
from broadway_api.handlers.course_protocol import courses as course_protocol_courses
from broadway_api.handlers.course_protocol import graders as course_protocol_graders
from broadway_api.handlers.course_protocol import sockets as course_protocol_sockets
from broadway_api.handlers.gate import Gate
from broadway_api.handlers.proxies import Proxies
from broadway_api.handlers.shared import HttpLimits, OpenRequests, OpenSockets, Shared
from broadway_api.loop_monitor import LoopMonitor
from broadway_api.openapi.document import document
from broadway_api.openapi.model import Context
from broadway_api.service import Service
from broadway_api.site import Site


def make_app(
    service: Service,
    *,
    monitor: LoopMonitor | None = None,
    requests: OpenRequests | None = None,
    sockets: OpenSockets | None = None,
    limits: HttpLimits | None = None,
) -> Site:
    """All routes over a service. Raises ValueError for a proxy that is no address."""
    limits = limits or HttpLimits()
    proxies = Proxies(limits.trusted_proxies)
    shared = Shared(
        service=service,
        gate=Gate(service.access, service.sessions, Failures(limits.auth_failures_per_minute), proxies),
        monitor=monitor or LoopMonitor(),
        requests=requests or OpenRequests(),
        sockets=sockets or OpenSockets(),
        limits=limits,
    )
    routes = [
        *course_protocol_graders.routes,  # those whose paths are not theirs alone come before ours
        *workers.routes,
        *courses.routes,
        *output.routes,
        *views.routes,
        *secrets.routes,
        *tenants.routes,
        *operations.routes,
        *documentation.routes,
        *course_protocol_courses.routes,
        *course_protocol_sockets.routes,
        *sessions.routes,
        *dashboard.routes,
    ]
    description = document(Context(policy=service.policy, queue_empty_code=limits.queue_empty_code))
    return Site(
        [(path, handler, {"shared": shared}) for path, handler in routes],
        default_handler_class=UnknownPathHandler,
        default_handler_args={"shared": shared},
        log_function=log_request,
        proxies=proxies,
        openapi=json.dumps(description).encode(),
    )
