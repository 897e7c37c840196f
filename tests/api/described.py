"""Whether an answer is what the API's own description says of it: of every answer that an API test gets."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import httpx
import jsonschema_rs

from broadway_api.openapi.document import document
from broadway_api.openapi.model import Context
from broadway_api.policy import Policy

Json = dict[str, Any]

HINT = "Describe it where its route is described, in broadway_api/openapi/ (answers.py has the shapes of answers)."


class Undescribed(AssertionError):
    """The API does what its description does not say."""


class Description:
    """An OpenAPI document, compiled piece by piece as answers come."""

    def __init__(self, described: Json) -> None:
        self.document = described
        self._components = _closed(described["components"])
        self._templates = {template: _pattern(template) for template in described["paths"]}
        self._validators: dict[tuple[str, str, int], Any] = {}

    def template(self, path: str) -> str | None:
        """The path template that a path is of; None for what is nobody's."""
        return next((template for template, pattern in self._templates.items() if pattern.fullmatch(path)), None)

    def check(self, method: str, path: str, status: int, media_type: str, body: Any) -> None:
        """Raise Undescribed if the answer is not as described; `body` is a JSON value, None if it is not JSON."""
        template = self.template(path)
        operation = self.document["paths"].get(template, {}).get(method.lower())
        if operation is None or template is None:
            if not 400 <= status < 500:
                raise Undescribed(f"{method} {path} was answered with {status}, but has no description. {HINT}")
            return
        answer = operation["responses"].get(str(status))
        if answer is None:
            raise Undescribed(f"{method} {template} was answered with {status}, which is not described. {HINT}")
        content = answer.get("content", {})
        if (media_type or None) not in (content or {None: {}}) and "*/*" not in content:
            raise Undescribed(f"{method} {template} was answered with {media_type!r}, not {list(content)}. {HINT}")
        schema = content.get(media_type, {}).get("schema")
        if schema is not None:
            self._check_body(schema, (method, template, status), body)

    def _check_body(self, schema: Json, of: tuple[str, str, int], body: Any) -> None:
        if of not in self._validators:
            self._validators[of] = jsonschema_rs.Draft202012Validator(
                _closed(schema) | {"components": self._components}, validate_formats=True
            )
        faults = [
            f"${''.join(f'[{s!r}]' for s in e.instance_path)}: {e.message[:300]}"
            for e in self._validators[of].iter_errors(body)
        ]
        if faults:
            raise Undescribed(f"{' '.join(map(str, of))}: the answer is not as described: {'; '.join(faults)}. {HINT}")


@lru_cache
def description(policy: Policy, queue_empty_code: int) -> Description:
    """The description that an API of these settings gives of itself."""
    return Description(document(Context(policy=policy, queue_empty_code=queue_empty_code)))


async def check_answer(described: Description, response: httpx.Response) -> None:
    """Hold an answer against the description. What is no JSON is not read: streams end when they like."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0]
    is_json = media_type == "application/json" and response.request.method != "HEAD"
    if is_json:
        await response.aread()
    path = response.request.url.raw_path.decode().partition("?")[0]
    body = response.json() if is_json else None
    described.check(response.request.method, path, response.status_code, media_type, body)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(
        "".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", template))
    )


def _closed(schema: Any) -> Any:
    """The schema, allowing no properties but those named: a later release may add some, this one must name its own."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
