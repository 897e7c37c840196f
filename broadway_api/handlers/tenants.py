"""What the operator calls to make, list and take away courses and tokens."""

from __future__ import annotations

import re

from broadway_api import wire
from broadway_api.handlers.base import ApiHandler, refuse
from broadway_api.schemas import COURSE, COURSE_ID, TOKEN
from broadway_api.tenants import Role
from broadway_api.validation import Validator

_course = Validator(COURSE, mask="what stands here")
_token = Validator(TOKEN)


class CoursesHandler(ApiHandler):
    """All courses."""

    async def get(self) -> None:
        self.succeed({"courses": [wire.course_to_json(course) for course in await self.service.tenancy.courses()]})


class CourseHandler(ApiHandler):
    """One course."""

    async def get(self, course_id: str) -> None:
        self.succeed(wire.course_to_json(await self.service.tenancy.course(_checked(course_id))))

    async def put(self, course_id: str) -> None:
        data = await self.json_body(_course) or {}
        course = await self.service.tenancy.put_course(
            _checked(course_id),
            weight=data.get("weight"),
            tokens=data.get("tokens"),
            query_tokens=data.get("query_tokens"),
        )
        self.succeed(wire.course_to_json(course))

    async def delete(self, course_id: str) -> None:
        await self.service.tenancy.delete_course(_checked(course_id))
        self.succeed({"course": course_id})


class TokensHandler(ApiHandler):
    """All tokens that were made."""

    async def get(self) -> None:
        now = self.service.now()
        self.succeed({"tokens": [wire.token_to_json(token, now) for token in await self.service.tenancy.tokens()]})

    async def post(self) -> None:
        data = await self.json_body(_token)
        if data is None:
            refuse("$", "the body is empty; send the role of the token")
        role, course = Role(data["role"]), data.get("course")
        if role.of_course and course is None:
            refuse("$.course", f"missing: a token of the role {role} belongs to a course")
        if course is not None and not role.of_course:
            refuse("$.course", f"a token of the role {role} belongs to no course")
        token, text = await self.service.tenancy.make_token(
            role, course=course, label=data.get("label", ""), expires_in=data.get("expires_in")
        )
        self.succeed(wire.token_to_json(token, self.service.now()) | {"token": text})


class TokenHandler(ApiHandler):
    """One token."""

    async def delete(self, token_id: str) -> None:
        token = await self.service.tenancy.revoke_token(self.checked_id(token_id, "token id"))
        self.succeed(wire.token_to_json(token, self.service.now()))


def _checked(course_id: str) -> str:
    if not re.fullmatch(COURSE_ID, course_id):
        refuse("course", f"{course_id[:80]!r} is no id of a course: 1 to 128 letters of a to z, digits, - and _")
    return course_id


routes = [
    (r"/api/v1/courses", CoursesHandler),
    (r"/api/v1/courses/([^/]+)", CourseHandler),
    (r"/api/v1/tokens", TokensHandler),
    (r"/api/v1/tokens/([^/]+)", TokenHandler),
]
