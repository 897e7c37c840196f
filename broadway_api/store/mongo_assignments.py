"""Courses' assignments in the MongoDB store. See `port.py` for what each method promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broadway_api.errors import AssignmentNotFound
from broadway_api.store import records
from broadway_api.store.mongo_engine import translate_errors
from broadway_api.store.mongo_part import MongoPart


@translate_errors
class MongoAssignments(MongoPart):
    """Configurations, kept as they came."""

    async def put_assignment(self, course: str, name: str, config: Mapping[str, Any]) -> None:
        key = {"course": course, "name": name}
        document = {"_id": key, "config": records.to_text(config)}
        await self._assignments.replace_one({"_id": key}, document, upsert=True)

    async def assignment(self, course: str, name: str) -> dict[str, Any]:
        document = await self._assignments.find_one({"_id": {"course": course, "name": name}})
        if document is None:
            raise AssignmentNotFound(course, name)
        return dict(records.from_text(document["config"]))
