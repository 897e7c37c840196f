"""The API's description: valid OpenAPI 3.1, of the very schemas that validate, of every route and of nothing else."""

from __future__ import annotations

import re
from itertools import product
from typing import Any, cast

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from tornado.routing import PathMatches

from broadway_api.app import make_app
from broadway_api.cluster_tokens import ClusterTokens
from broadway_api.handlers.base import ApiHandler
from broadway_api.openapi.document import document
from broadway_api.openapi.model import Context
from broadway_api.policy import Policy
from broadway_api.secret_box import SecretBox
from broadway_api.service import Service
from broadway_api.store.port import Store

HOW = """
Every route is described in broadway_api/openapi/, in the module named as the one of its handler: an entry of `paths()`
under the route's path, with an Operation for each of its methods. New shapes of answers go into answers.py, new names
in braces into document.PATH_PARAMETERS, a new module into document.MODULES."""


def described(policy: Policy | None = None) -> dict[str, Any]:
    return document(Context(policy=policy or Policy(), queue_empty_code=498))


def alternatives(pattern: str) -> set[str]:
    """The path templates of a route, with {} for whatever is in its groups: `/a/(b|c)` is two."""
    pieces = re.split(r"\((?:\?:)?((?:[^()\[\]]|\[[^\]]*\])+)\)", pattern.removesuffix("$"))
    literal = [[piece.replace("\\", "")] for piece in pieces[::2]]
    groups = [piece.split("|") if re.fullmatch(r"[\w|]+", piece) else ["{}"] for piece in pieces[1::2]]
    woven = [part for pair in zip(literal, [*groups, [""]], strict=True) for part in pair]
    return {"".join(parts) for parts in product(*woven)}


def routes() -> set[tuple[str, str]]:
    """Each path of the application with each of its methods."""
    app = make_app(Service(cast(Store, None), Policy(), SecretBox.with_new_key(), ClusterTokens.given("token")))
    found = set()
    for rule in app.wildcard_router.rules:
        assert isinstance(rule.matcher, PathMatches)
        handler = cast(type[ApiHandler], rule.target)
        methods = [name.lower() for name in handler.SUPPORTED_METHODS if name not in ("HEAD", "OPTIONS")]
        has = [name for name in methods if getattr(handler, name) is not getattr(ApiHandler, name)]
        found |= set(product(alternatives(rule.matcher.regex.pattern), has))
    return found


def descriptions() -> set[tuple[str, str]]:
    return {
        (re.sub(r"\{\w+\}", "{}", template), method)
        for template, methods in described()["paths"].items()
        for method in methods
        if method != "parameters"
    }


def shown(calls: set[tuple[str, str]]) -> str:
    return ", ".join(sorted(f"{method.upper()} {path}" for path, method in calls))


def test_it_is_valid() -> None:
    OpenAPIV31SpecValidator(described()).validate()


def test_every_route_has_its_description() -> None:
    missing = routes() - descriptions()
    assert not missing, f"not described: {shown(missing)}.{HOW}"


def test_every_description_has_its_route() -> None:
    missing = descriptions() - routes()
    assert not missing, f"described, but there is no such route: {shown(missing)}.{HOW}"


@pytest.mark.parametrize(
    ("pattern", "templates"),
    [
        (r"/a", {"/a"}),
        (r"/a\.json", {"/a.json"}),
        (r"/a/([^/]+)/b$", {"/a/{}/b"}),
        (r"/(?:a|b)_c", {"/a_c", "/b_c"}),
        (r"/a/([-\w0-9]+)/(b|c)", {"/a/{}/b", "/a/{}/c"}),
    ],
)
def test_how_a_route_is_told_apart(pattern: str, templates: set[str]) -> None:
    assert alternatives(pattern) == templates


def test_it_has_the_clusters_own_limits() -> None:
    stage = described(Policy(max_stage_timeout=7, allow_privileged=True))["components"]["schemas"]["Stage"]
    assert stage["properties"]["timeout"]["maximum"] == 7
    assert "const" not in stage["properties"]["privileged"]


def test_links_lead_somewhere() -> None:
    operations = {
        operation["operationId"]: (operation, path)
        for path, methods in described()["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    }
    for operation, _ in operations.values():
        for response in operation["responses"].values():
            for name, link in response.get("links", {}).items():
                assert set(link["parameters"]) == set(re.findall(r"\{(\w+)\}", operations[name][1]))
