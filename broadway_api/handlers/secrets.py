"""What those call who keep a course's secrets: set, list and delete, never read."""

from __future__ import annotations

from typing import ClassVar

from broadway_api import wire
from broadway_api.errors import Fault, InvalidInput
from broadway_api.handlers.base import CHANGERS, ApiHandler
from broadway_api.schemas import SECRET
from broadway_api.validation import Validator

_secret = Validator(SECRET, mask="what was sent")


class CourseSecretsHandler(ApiHandler):
    """What is about the secrets of one course."""

    async def course(self) -> str:
        """That course. Raises CourseNotFound."""
        return await self.service.access.course_of(self.principal, self.course_argument())


class SecretsHandler(CourseSecretsHandler):
    """All secrets of a course."""

    allowed: ClassVar = {"GET": CHANGERS}

    async def get(self) -> None:
        found = await self.service.vault.names(await self.course())
        self.succeed({"secrets": [wire.secret_to_json(name, changed_at) for name, changed_at in found.items()]})


class SecretHandler(CourseSecretsHandler):
    """One secret."""

    allowed: ClassVar = {"PUT": CHANGERS, "DELETE": CHANGERS}

    async def put(self, name: str) -> None:
        data = await self.json_body(_secret)
        if data is None:
            raise InvalidInput([Fault(path="$", message='the body is empty; send {"value": "…"}')])
        changed_at = await self.service.vault.put(await self.course(), name, data["value"])
        self.succeed(wire.secret_to_json(name, changed_at))

    async def delete(self, name: str) -> None:
        await self.service.vault.delete(await self.course(), name)
        self.succeed({"name": name})


class ResealHandler(ApiHandler):
    """A change of keys."""

    async def post(self) -> None:
        self.succeed({"secrets": await self.service.vault.reseal()})


routes = [
    (r"/api/v1/secrets", SecretsHandler),
    (r"/api/v1/reseal_secrets", ResealHandler),
    (r"/api/v1/secrets/([^/]+)", SecretHandler),
]
