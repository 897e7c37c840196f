"""Changes of several jobs on MongoDB as few statements: one for all jobs whose guards say the same.

What a statement costs the server is mostly that it reads and plans it. Each job is still changed by itself, if it is as
the guard says in that moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pymongo import UpdateMany, UpdateOne

from broadway_api.domain import JobState
from broadway_api.store.mongo_documents import BY_ID
from broadway_api.store.mongo_engine import Document

#: Characters beyond which a change is a statement of its own: a statement may have 16 MB.
LARGE = 16_384


class Guard(NamedTuple):
    """What a job must still be like: in a state, at an attempt, and for a queued one, not retried since it was read.

    No two attempts at a job have one number, and of each number it is queued once in a generation.
    """

    run_id: str  # by which the collection may be sharded
    state: JobState
    attempt: int
    generation: int | None = None

    @property
    def query(self) -> Document:
        """It as a query."""
        at = {"run_id": self.run_id, "state": self.state.value, "attempt": self.attempt}
        return at | {"generation": self.generation} if self.state is JobState.QUEUED else at


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What is to become of a job, should it still be as the guard says."""

    job_id: str
    guard: Guard
    fields: Document
    size: int = 0  # characters of what may be long in it

    @property
    def query(self) -> Document:
        """Which job, as a query."""
        return {"_id": self.job_id, **self.guard.query}


def statements(changes: Iterable[Change]) -> list[UpdateOne | UpdateMany]:
    """What makes some changes, in an order in which those of one guard are together."""
    groups: defaultdict[tuple[Guard, str | None], list[Change]] = defaultdict(list)
    for change in changes:
        groups[change.guard, change.job_id if change.size > LARGE else None].append(change)
    return [_statement(guard, group) for (guard, _), group in groups.items()]


def _statement(guard: Guard, changes: list[Change]) -> UpdateOne | UpdateMany:
    if len(changes) == 1:
        return UpdateOne(changes[0].query, {"$set": changes[0].fields}, hint=BY_ID)
    ids = [change.job_id for change in changes]
    which: Any = {"$indexOfArray": [{"$literal": ids}, "$_id"]}
    fields = {"$arrayElemAt": [{"$literal": [change.fields for change in changes]}, which]}
    changed = [{"$replaceWith": {"$mergeObjects": ["$$ROOT", fields]}}]
    return UpdateMany({"_id": {"$in": ids}, **guard.query}, changed, hint=BY_ID)
