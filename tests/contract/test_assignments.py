"""Courses' configurations of assignments: kept and given back as they came."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_api.errors import AssignmentNotFound
from broadway_api.store.port import Store

ANY: dict[str, Any] = {
    "student_pipeline": [{"image": "a", "env": {"$where.x": "\u0000 ü", "n": 10**30}}],
    "env": None,
    "empty": {},
}


async def test_a_configuration_comes_back_as_it_was_put(store: Store, peer: Store) -> None:
    await store.put_assignment("cs-225", "mp1", ANY)
    found = await peer.assignment("cs-225", "mp1")
    assert found == ANY
    assert list(found) == list(ANY)


async def test_the_last_one_put_is_the_one(store: Store, peer: Store) -> None:
    await store.put_assignment("c", "mp1", ANY)
    await peer.put_assignment("c", "mp1", {"student_pipeline": []})
    assert await store.assignment("c", "mp1") == {"student_pipeline": []}


async def test_courses_and_assignments_do_not_share_configurations(store: Store) -> None:
    await store.put_assignment("c", "mp1", ANY)
    for course, name in (("c", "mp2"), ("d", "mp1"), ("mp1", "c"), ("C", "mp1")):
        with pytest.raises(AssignmentNotFound):
            await store.assignment(course, name)
