"""Secrets in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from broadway_api.domain import SealedSecret
from broadway_api.errors import SecretNotFound
from broadway_api.store.mongo_engine import Document, translate_errors
from broadway_api.store.mongo_part import MongoPart

_IN_ORDER = [("_id.course", 1), ("_id.name", 1)]


@translate_errors
class MongoSecrets(MongoPart):
    """Secrets, of which only sealed values are here; a course's are found by an index on its id."""

    async def put_secret(self, secret: SealedSecret) -> None:
        fields = {"sealed": secret.sealed, "changed_at": secret.changed_at}
        await self._secrets.replace_one({"_id": _id(secret.course, secret.name)}, fields, upsert=True)

    async def secret_names(self, course: str) -> Mapping[str, datetime]:
        found = self._secrets.find({"_id.course": course}, {"changed_at": True}).sort(_IN_ORDER)
        return {document["_id"]["name"]: document["changed_at"] async for document in found}

    async def secrets(self, course: str, names: Collection[str]) -> list[SealedSecret]:
        wanted = {"_id": {"$in": [_id(course, name) for name in names]}}
        return [_from_document(document) async for document in self._secrets.find(wanted).sort(_IN_ORDER)]

    async def any_secret(self) -> SealedSecret | None:
        document = await self._secrets.find_one()
        return None if document is None else _from_document(document)

    async def all_secrets(self) -> list[SealedSecret]:
        return [_from_document(document) async for document in self._secrets.find().sort(_IN_ORDER)]

    async def reseal_secret(self, secret: SealedSecret, sealed: str) -> bool:
        unchanged = {"_id": _id(secret.course, secret.name), "sealed": secret.sealed}
        return bool((await self._secrets.update_one(unchanged, {"$set": {"sealed": sealed}})).matched_count)

    async def delete_secret(self, course: str, name: str) -> None:
        if not (await self._secrets.delete_one({"_id": _id(course, name)})).deleted_count:
            raise SecretNotFound(name)


def _id(course: str, name: str) -> Document:
    return {"course": course, "name": name}  # compared as a whole, so always in this order


def _from_document(document: Document) -> SealedSecret:
    whose = document["_id"]
    return SealedSecret(
        course=whose["course"], name=whose["name"], sealed=document["sealed"], changed_at=document["changed_at"]
    )
