"""The routes of `handlers/sessions.py` and `handlers/dashboard.py`."""

from __future__ import annotations

from broadway_api.openapi import answers
from broadway_api.openapi.model import Access, Answer, Context, Operation, Paths
from broadway_api.schemas import LOGIN


def paths(_: Context) -> Paths:
    """What browsers call."""
    return {
        "/api/v1/session": {
            "post": Operation(
                id="logIn",
                summary="Begin a session",
                description="The cookie that comes with the answer may stand for the token in what the dashboard asks.",
                access=Access.PUBLIC,
                body=LOGIN,
                answers={200: Answer(description="begun", data=answers.SESSION, headers={"Set-Cookie": "the session"})},
                refusals={
                    400: "the request is not valid",
                    401: "wrong token",
                    403: "a grader's token, or another site's page",
                    429: "too many wrong tokens came from this address",
                },
            ),
            "get": Operation(
                id="getSession",
                summary="Whose the session is",
                access=Access.PUBLIC,
                answers={200: Answer(description="the session of the cookie", data=answers.SESSION)},
                refusals={401: "there is no session, or it is over"},
            ),
            "delete": Operation(
                id="logOut",
                summary="End the session in this browser",
                access=Access.PUBLIC,
                answers={200: Answer(description="ended", data=answers.NOTHING)},
            ),
        },
        "/": {
            "get": Operation(
                id="readDashboard",
                summary="The dashboard",
                access=Access.PUBLIC,
                answers={200: Answer(description="a page", media_type="text/html")},
            ),
        },
        "/dashboard/{asset}": {
            "get": Operation(
                id="getDashboardAsset",
                summary="A script or style of the dashboard",
                access=Access.PUBLIC,
                answers={
                    200: Answer(description="a file", media_type="*/*"),
                    304: Answer(description="the file that the browser has"),
                },
                refusals={404: "the dashboard has no such file"},
            ),
        },
    }
