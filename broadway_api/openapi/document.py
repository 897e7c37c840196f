"""The OpenAPI document, put together of all descriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from broadway_api import __version__
from broadway_api.openapi import (
    course_protocol,
    courses,
    dashboard,
    operations,
    output,
    secrets,
    tenants,
    views,
    workers,
)
from broadway_api.openapi.model import Access, Answer, Context, Operation, Parameter
from broadway_api.schemas import COURSE_ID, ID, SECRET_NAME, Schema

#: The modules that describe routes, with the heading under which theirs stand.
MODULES = (
    ("Courses", courses.paths),
    ("Output", output.paths),
    ("Views", views.paths),
    ("Secrets", secrets.paths),
    ("Graders", workers.paths),
    ("Access", tenants.paths),
    ("Operations", operations.paths),
    ("Course protocol", course_protocol.paths),
    ("Dashboard", dashboard.paths),
)

_NAME: Schema = {"type": "string", "pattern": "^[-A-Za-z0-9_]+$"}

#: What stands in braces in a path template.
PATH_PARAMETERS: Mapping[str, Schema] = {
    "grading_run_id": ID,
    "job_id": ID,
    "worker_id": ID,
    "secret": {"type": "string", "pattern": SECRET_NAME},
    "assignment": _NAME,
    "run": _NAME,
    "job": _NAME,
    "worker": _NAME,
    "scope": {"type": "string", "pattern": "^[^()/]+$"},
    "course": {"type": "string", "pattern": COURSE_ID},
    "token_id": ID,
    "asset": {"type": "string", "pattern": "^[a-z.-]+$"},
}

_FAILURE: Schema = {
    "title": "Failure",
    "description": "the caller's fault",
    "type": "object",
    "required": ["status", "data"],
    "properties": {
        "status": {"const": "fail"},
        "data": {
            "type": "object",
            "required": ["message"],
            "properties": {
                "message": {"type": "string", "minLength": 1},
                "errors": {
                    "description": "the first faults of what was sent",
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["path", "message"],
                        "properties": {
                            "path": {
                                "type": "string",
                                "description": "a JSONPath (RFC 9535), or the name of a parameter",
                            },
                            "message": {"type": "string"},
                        },
                    },
                },
                "more_errors": {"type": "integer", "minimum": 0, "description": "how many there are beside these"},
                "line": {"type": "integer", "minimum": 1, "description": "where the body is not JSON"},
                "column": {"type": "integer", "minimum": 1},
            },
        },
    },
}

_ERROR: Schema = {
    "title": "Error",
    "description": "our fault",
    "type": "object",
    "required": ["status", "message"],
    "properties": {"status": {"const": "error"}, "message": {"type": "string"}},
}

_SECURITY: Mapping[Access, list[dict[str, list[str]]]] = {
    Access.PUBLIC: [],
    Access.CLUSTER: [{"bearer": []}, {"token": []}],
    Access.WORKER: [{"bearer": [], "worker": []}, {"token": [], "worker": []}],
}


def document(context: Context) -> dict[str, Any]:
    """The whole API as this process serves it."""
    components: dict[str, Schema] = {}
    described: dict[str, Any] = {}
    for heading, paths in MODULES:
        for template, methods in paths(context).items():
            described.setdefault(template, {"parameters": _path_parameters(template)}).update(
                {method: _operation(operation, heading, template) for method, operation in methods.items()}
            )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Broadway",
            "version": __version__,
            "description": "Distributed autograding. `docs/protocol.md` says in words what stands here in schemas.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": heading} for heading, _ in MODULES],
        "paths": _named(described, components),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "a token: the cluster's, or one that was made",
                },
                "token": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "it alone"},
                "worker": {"type": "apiKey", "in": "header", "name": "worker_id", "description": "also `Worker-Id`"},
            },
        },
    }


def _operation(operation: Operation, heading: str, template: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [heading],
        "summary": operation.summary,
        "security": _SECURITY[operation.access],
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
        "responses": {str(status): _answer(answer, operation) for status, answer in operation.answers.items()}
        | {str(status): _refusal(status, text) for status, text in sorted(_refusals(operation, template).items())},
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.needs_body,
            "content": {"application/json": {"schema": operation.body}},
        }
    return described


def _refusals(operation: Operation, template: str) -> dict[int, str]:
    """All that an operation may refuse."""
    usual = {
        414: "the path and its query are too long",
        431: "too many header lines",
        503: "the store cannot be reached; try again",
    }
    if "{" in template or operation.parameters or operation.body is not None or operation.access is Access.WORKER:
        usual[400] = "the request is not valid"
    if operation.access is Access.CLUSTER:
        usual[401] = "missing or wrong token" + (", or unknown worker" if "{worker_id}" in template else "")
    if operation.access is Access.WORKER:
        usual[401] = "missing or wrong token, or unknown worker: register again"
    if operation.access is not Access.PUBLIC:
        usual |= {403: "the token is of another role", 429: "too many wrong tokens came from this address"}
    if operation.body is not None:
        usual |= {408: "the body stalled", 413: "the body is too large"}
    return usual | dict(operation.refusals)


def _answer(answer: Answer, operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        described["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    if answer.data is not None:
        envelope = {
            "type": "object",
            "required": ["status", "data"],
            "properties": {"status": {"const": "success"}, "data": answer.data},
        }
        described["content"] = {"application/json": {"schema": envelope}}
        if operation.links:
            described["links"] = {
                name: {"operationId": name, "parameters": dict(parameters)}
                for name, parameters in operation.links.items()
            }
    if answer.media_type is not None:
        described.setdefault("content", {})[answer.media_type] = {}
    return described


def _refusal(status: int, text: str) -> dict[str, Any]:
    schema = _FAILURE if status < 500 else _ERROR
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": parameter.schema,
    }
    if parameter.schema.get("type") == "array":
        described |= {"style": "form", "explode": False}
    return described


def _path_parameters(template: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": PATH_PARAMETERS[name]}
        for name in re.findall(r"\{(\w+)\}", template)
    ]


def _named(value: Any, components: dict[str, Schema]) -> Any:
    """The value with each schema that has a title put among the components, and a reference in its place."""
    if isinstance(value, list | tuple):
        return [_named(item, components) for item in value]
    if not isinstance(value, Mapping):
        return value
    inner = {name: _named(part, components) for name, part in value.items()}
    title = value.get("title")
    if not isinstance(title, str) or not ("type" in value or "enum" in value):
        return inner
    if components.setdefault(title, inner) != inner:
        raise ValueError(f"two schemas have the title {title}: give one of them another")
    return {"$ref": f"#/components/schemas/{title}"}
