"""The routes of `handlers/operations.py` and `handlers/documentation.py`."""

from __future__ import annotations

from broadway_api.openapi import answers
from broadway_api.openapi.model import Access, Answer, Context, Operation, Paths


def paths(_: Context) -> Paths:
    """What operators and their machines call, and what people read."""
    return {
        "/healthz": {
            "get": Operation(
                id="health",
                summary="Whether this process can do its work",
                access=Access.PUBLIC,
                answers={200: Answer(description="its loop turns and its store answers", data=answers.HEALTH)},
                refusals={401: "a wrong token; none is needed", 429: "too many wrong tokens came from this address"},
            ),
        },
        "/readyz": {
            "get": Operation(
                id="readiness",
                summary="Whether this process is to be sent requests",
                description="503 also while it is stopping.",
                access=Access.PUBLIC,
                answers={200: Answer(description="it is", data=answers.READINESS)},
            ),
        },
        "/metrics": {
            "get": Operation(
                id="metrics",
                summary="Prometheus's view of this process and its cluster",
                description="Without a token if the API was started with `--open-metrics`.",
                answers={200: Answer(description="the text format", media_type="text/plain")},
            ),
        },
        "/openapi.json": {
            "get": Operation(
                id="describe",
                summary="This description",
                access=Access.PUBLIC,
                answers={200: Answer(description="OpenAPI 3.1", media_type="application/json")},
            ),
        },
        "/docs": {
            "get": Operation(
                id="readDescription",
                summary="This description as a page",
                access=Access.PUBLIC,
                answers={200: Answer(description="a page", media_type="text/html")},
            ),
        },
        "/docs/{asset}": {
            "get": Operation(
                id="getDescriptionAsset",
                summary="A script or style of that page",
                access=Access.PUBLIC,
                answers={200: Answer(description="a file", media_type="*/*")},
                refusals={404: "the page has no such file"},
            ),
        },
    }
