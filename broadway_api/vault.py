"""The secrets of courses: kept sealed in the store, opened when a job is handed out, and never shown."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from broadway_api.domain import JobType, RunConfig, SealedSecret
from broadway_api.errors import Fault, InvalidInput
from broadway_api.schemas import SECRET_NAME
from broadway_api.secret_box import SecretBox
from broadway_api.store.port import Store

logger = logging.getLogger(__name__)

#: Characters that a value must have: a shorter one could not be masked in a log without masking half of it.
MIN_LENGTH = 4

#: Bytes that a value may have; 16 of them, the most that a stage may name, fit into an environment.
MAX_BYTES = 16_384

#: Secrets of a course.
MAX_SECRETS = 200


class Vault:
    """The use cases of secrets, over the store and the box that seals what goes into it."""

    def __init__(self, store: Store, box: SecretBox, now: Callable[[], datetime]) -> None:
        self._store = store
        self._box = box
        self._now = now

    async def check_key(self) -> None:
        """Raise SecretKeyMismatch if the store has secrets and this box does not open them."""
        sample = await self._store.any_secret()
        if sample is not None:
            self._box.unseal(sample.course, sample.name, sample.sealed)

    async def put(self, course: str, name: str, value: str) -> datetime:
        """Keep a secret, in place of an earlier value; return the time of the change.

        Raises InvalidInput, which does not quote the value, and SecretKeyMismatch rather than seal with a key that
        the rest of the store was not sealed with.
        """
        known = await self._store.secret_names(course)
        faults = [*_name_faults(name), *_value_faults(value)]
        if name not in known and len(known) >= MAX_SECRETS:
            faults.append(Fault(path="name", message=f"the course has {len(known)} secrets; remove one first"))
        if faults:
            raise InvalidInput(faults, what="the secret")
        await self.check_key()
        now = self._now()
        sealed = self._box.seal(course, name, value)
        await self._store.put_secret(SealedSecret(course=course, name=name, sealed=sealed, changed_at=now))
        logger.info("secret %s of course %s set", name, course)
        return now

    async def names(self, course: str) -> Mapping[str, datetime]:
        """The names of a course's secrets, in order, and when each was last changed."""
        return await self._store.secret_names(course)

    async def delete(self, course: str, name: str) -> None:
        """Forget a secret. Raises SecretNotFound."""
        await self._store.delete_secret(course, name)
        logger.info("secret %s of course %s deleted", name, course)

    async def missing(self, course: str, config: RunConfig) -> list[Fault]:
        """The places in a config that name secrets which the course does not have."""
        named = [
            (f"$.{job_type}_pipeline[{index}].env.{variable}", name)
            for job_type in JobType
            for index, stage in enumerate(config.pipeline(job_type))
            for variable, name in stage.secrets.items()
        ]
        known = await self._store.secret_names(course) if named else {}
        return [
            Fault(path=path, message=f"there is no secret {name}; set it with PUT /api/v1/secrets/{name}")
            for path, name in named
            if name not in known
        ]

    async def values(self, course: str, names: Collection[str]) -> Mapping[str, str]:
        """The values of those of the named secrets that there are. Raises SecretKeyMismatch."""
        found = await self._store.secrets(course, names)
        return {secret.name: self._box.unseal(course, secret.name, secret.sealed) for secret in found}

    async def reseal(self) -> int:
        """Seal every secret with the first key, so that the others can go; return how many those are.

        Guard of each: it was not changed meanwhile. Raises SecretKeyMismatch.
        """
        number = 0
        for secret in await self._store.all_secrets():
            number += await self._store.reseal_secret(secret, self._box.reseal(secret.sealed))
        logger.info("%d secrets sealed with the first key", number)
        return number


def _name_faults(name: str) -> list[Fault]:
    if re.fullmatch(SECRET_NAME, name):
        return []
    message = f"{name[:40]!r} is no name of a secret: up to 100 letters, digits, _, . and -, not beginning with . or -"
    return [Fault(path="name", message=message)]


def _value_faults(value: str) -> list[Fault]:
    if len(value.strip()) < MIN_LENGTH:
        return [Fault(path="$.value", message=f"shorter than {MIN_LENGTH} characters, too short to be masked in logs")]
    if len(value.encode()) > MAX_BYTES:
        return [Fault(path="$.value", message=f"larger than {MAX_BYTES} bytes; name where to get it, and a token")]
    return []
