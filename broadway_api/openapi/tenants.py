"""The routes of `handlers/tenants.py`."""

from __future__ import annotations

from broadway_api.openapi import answers
from broadway_api.openapi.model import Answer, Context, Operation, Paths
from broadway_api.schemas import COURSE, TOKEN

_NO_COURSE = {404: "there is no such course"}


def paths(_: Context) -> Paths:
    """What operators call about courses and tokens."""
    return {
        "/api/v1/courses": {
            "get": Operation(
                id="listCourses",
                summary="List the courses",
                answers={200: Answer(description="all of them", data=answers.COURSE_LIST)},
            ),
        },
        "/api/v1/courses/{course}": {
            "get": Operation(
                id="getCourse",
                summary="One course",
                answers={200: Answer(description="the course", data=answers.COURSE)},
                refusals=_NO_COURSE,
            ),
            "put": Operation(
                id="putCourse",
                summary="Make a course, or change it",
                description="Fields that are left out stay as they are.",
                body=COURSE,
                needs_body=False,
                answers={200: Answer(description="made or changed", data=answers.COURSE)},
            ),
            "delete": Operation(
                id="deleteCourse",
                summary="Take a course away, and revoke its tokens",
                description="Its runs stay and go on.",
                answers={200: Answer(description="gone", data=answers.COURSE_NAMED)},
                refusals=_NO_COURSE,
            ),
        },
        "/api/v1/tokens": {
            "get": Operation(
                id="listTokens",
                summary="List the tokens that were made",
                answers={200: Answer(description="all of them, without their texts", data=answers.TOKEN_LIST)},
            ),
            "post": Operation(
                id="makeToken",
                summary="Make a token",
                body=TOKEN,
                answers={200: Answer(description="made; its text is never told again", data=answers.TOKEN_MADE)},
                refusals=_NO_COURSE,
                links={"revokeToken": {"token_id": "$response.body#/data/token_id"}},
            ),
        },
        "/api/v1/tokens/{token_id}": {
            "delete": Operation(
                id="revokeToken",
                summary="Revoke a token",
                answers={200: Answer(description="revoked, now or before", data=answers.TOKEN)},
                refusals={404: "no token has this id"},
            ),
        },
    }
