"""The routes of `handlers/secrets.py`."""

from __future__ import annotations

from broadway_api.openapi import answers
from broadway_api.openapi.courses import COURSE_NAMED
from broadway_api.openapi.model import Answer, Context, Operation, Paths
from broadway_api.schemas import SECRET

_NO_COURSE = {404: "there is no such course"}


def paths(_: Context) -> Paths:
    """What those call who keep a course's secrets."""
    return {
        "/api/v1/secrets": {
            "get": Operation(
                id="listSecrets",
                summary="List the names of secrets; no call tells a value",
                parameters=(COURSE_NAMED,),
                refusals=_NO_COURSE,
                answers={200: Answer(description="the names", data=answers.SECRET_LIST)},
            ),
        },
        "/api/v1/secrets/{secret}": {
            "put": Operation(
                id="setSecret",
                summary="Set or replace a secret",
                parameters=(COURSE_NAMED,),
                refusals=_NO_COURSE,
                body=SECRET,
                answers={200: Answer(description="set", data=answers.SECRET_CHANGED)},
            ),
            "delete": Operation(
                id="deleteSecret",
                summary="Delete a secret",
                answers={200: Answer(description="deleted", data=answers.SECRET_DELETED)},
                parameters=(COURSE_NAMED,),
                refusals={404: "there is no such secret, or no such course"},
            ),
        },
        "/api/v1/reseal_secrets": {
            "post": Operation(
                id="resealSecrets",
                summary="Seal every secret with the first key, so that the others can go",
                answers={200: Answer(description="sealed", data=answers.SECRETS_RESEALED)},
            ),
        },
    }
