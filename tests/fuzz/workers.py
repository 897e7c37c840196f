"""Hooks of schemathesis: requests that ask for a worker's id get the one of a worker that is registered."""

from __future__ import annotations

import os
from typing import Any

import httpx
import schemathesis

_worker_id = ""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Give the request a worker's id; a new one if the last was deregistered, as the fuzzer likes to do."""
    if any("worker" in scheme for scheme in case.operation.definition.raw.get("security", [])):
        case.headers["worker_id"] = _worker_id or _register()


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Forget a worker that the API does not know."""
    global _worker_id
    if response.status_code == 401 and _worker_id and _worker_id in response.text:
        _worker_id = ""


def _register() -> str:
    global _worker_id
    answer = httpx.post(
        f"{os.environ['FUZZ_URL']}/api/v1/worker_register", headers={"Authorization": os.environ["FUZZ_TOKEN"]}
    )
    _worker_id = str(answer.raise_for_status().json()["data"]["worker_id"])
    return _worker_id
