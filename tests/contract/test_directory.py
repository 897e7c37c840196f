"""Courses and tokens: replaced as one value, by whoever comes first, and shares of the queue by their weights."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from broadway_api.errors import CourseNotFound, TokenNotFound
from broadway_api.ids import new_id
from broadway_api.store import open_store
from broadway_api.store.port import Store
from broadway_api.store.sqlite_schema import VERSIONS
from broadway_api.tenants import ENDED_TOKEN_RETENTION, Course, Directory, Role, Token, digest
from tests.contract.backends import SqliteBackend
from tests.contract.scenarios import NOW, claimed, later, started, worker


def new_token(course: str | None = None, **fields: object) -> Token:
    """A token as the service makes it, not stored."""
    token_id = new_id()
    role = Role.WORKER if course is None else Role.ADMIN
    made: dict[str, object] = {"role": role, "course": course, "created_at": NOW, "digest": digest(token_id)}
    return Token(id=token_id, **(made | fields))  # type: ignore[arg-type]


async def with_course(store: Store, course_id: str, weight: float = 1.0) -> None:
    await store.change_directory(lambda directory: directory.with_course(course_id, weight=weight))


async def test_a_new_store_has_no_courses_and_no_tokens(store: Store) -> None:
    directory = await store.directory()
    assert directory == Directory()
    assert directory.has_course("default")  # which needs none
    assert not directory.has_course("cs-241")


async def test_what_was_changed_can_be_read_by_everybody(store: Store, peer: Store) -> None:
    admin = new_token("cs-241", label="$set.a ü", expires_at=later(60))
    grader = new_token()

    await store.change_directory(
        lambda before: before.with_course("cs-241", weight=2.5, tokens=[digest("a"), digest("b")])
    )
    await peer.change_directory(lambda before: before.with_token(admin))
    changed = await store.change_directory(lambda before: before.with_token(grader))

    assert changed == await peer.directory() == await store.directory()
    assert changed.version == 3
    assert changed.courses == {"cs-241": Course(id="cs-241", weight=2.5, tokens=frozenset({digest("a"), digest("b")}))}
    assert changed.tokens == {admin.id: admin, grader.id: grader}


async def test_who_knows_a_version_is_told_of_others_only(store: Store, peer: Store) -> None:
    assert await peer.directory_since(0) is None
    await with_course(store, "one")
    assert await peer.directory_since(0) == await store.directory()
    assert await peer.directory_since(1) is None
    assert await peer.directory_since(7) == await store.directory()  # a store that was put back from a copy


async def test_a_change_that_changes_nothing_is_no_new_version(store: Store) -> None:
    await with_course(store, "one", 3)
    await with_course(store, "one", 3)
    assert (await store.directory()).version == 1


async def test_a_refused_change_changes_nothing(store: Store) -> None:
    await with_course(store, "one")
    before = await store.directory()
    with pytest.raises(CourseNotFound):
        await store.change_directory(lambda directory: directory.with_token(new_token("none")))
    with pytest.raises(CourseNotFound):
        await store.change_directory(lambda directory: directory.without_course("none", NOW))
    with pytest.raises(TokenNotFound):
        await store.change_directory(lambda directory: directory.with_token_revoked(new_id(), NOW))
    assert await store.directory() == before


async def test_changes_at_once_are_all_made(store: Store, peer: Store) -> None:
    tokens = [new_token() for _ in range(12)]
    stores = [store, peer] * 6
    await asyncio.gather(
        *(
            one.change_directory(lambda before, token=token: before.with_token(token))  # type: ignore[misc]
            for one, token in zip(stores, tokens, strict=True)
        )
    )
    directory = await store.directory()
    assert set(directory.tokens) == {token.id for token in tokens}
    assert directory.version == 12


async def test_a_file_replaces_the_courses_of_the_last_one_and_no_others(store: Store, peer: Store) -> None:
    await with_course(store, "by-hand")
    await store.change_directory(lambda before: before.with_file([Course(id="one"), Course(id="two", weight=2)]))
    made = new_token("one")
    await store.change_directory(lambda before: before.with_token(made))

    replaced = await peer.change_directory(lambda before: before.with_file([Course(id="two"), Course(id="three")]))

    assert {course.id: course.from_file for course in replaced.courses.values()} == {
        "by-hand": False,
        "two": True,
        "three": True,
    }
    assert replaced.courses["two"].weight == 1
    assert replaced.tokens == {made.id: made}  # for the day on which the file names its course again


async def test_a_course_that_goes_takes_its_tokens_with_it(store: Store) -> None:
    await with_course(store, "one")
    await with_course(store, "two")
    gone, kept = new_token("one"), new_token("two")
    for token in (gone, kept):
        await store.change_directory(lambda before, token=token: before.with_token(token))  # type: ignore[misc]

    left = await store.change_directory(lambda before: before.without_course("one", later(5)))

    assert set(left.courses) == {"two"}
    assert left.tokens[gone.id].ended(later(5)) == later(5)
    assert left.tokens[kept.id] == kept


async def test_a_token_is_revoked_once(store: Store) -> None:
    token = new_token()
    await store.change_directory(lambda before: before.with_token(token))
    await store.change_directory(lambda before: before.with_token_revoked(token.id, later(1)))
    await store.change_directory(lambda before: before.with_token_revoked(token.id, later(2)))
    assert (await store.directory()).tokens[token.id].revoked_at == later(1)


async def test_tokens_that_ended_long_ago_are_forgotten_when_one_is_made(store: Store) -> None:
    expired, live = new_token(expires_at=later(1)), new_token()
    late = new_token(created_at=later(2) + ENDED_TOKEN_RETENTION)
    for token in (expired, live, late):
        await store.change_directory(lambda before, token=token: before.with_token(token))  # type: ignore[misc]
    assert set((await store.directory()).tokens) == {live.id, late.id}


async def test_courses_share_the_fleet_by_weight(store: Store) -> None:
    await with_course(store, "heavy-1", 3)
    heavy = await started(store, 60, course="heavy-1")
    light = await started(store, 60, course="light")
    order = [job.run_id for job in await claimed(store, await worker(store), 40)]
    assert abs(order.count(heavy.id) - 30) <= 2
    assert order.count(light.id) == 40 - order.count(heavy.id)


async def test_a_workers_owner_is_kept(store: Store, peer: Store) -> None:
    owned = await worker(store, owner="label rack-1")
    assert (await peer.worker(owned)).owner == "label rack-1"
    assert (await peer.worker(await worker(store))).owner is None


async def test_a_file_of_the_first_version_is_upgraded_with_what_it_holds(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path)
    with closing(sqlite3.connect(backend.path)) as connection:
        connection.executescript(VERSIONS[0])
        connection.execute("INSERT INTO courses VALUES ('default', 1, 7.0)")
        connection.execute("UPDATE queue SET virtual_time = 5")
        connection.execute(
            "INSERT INTO workers VALUES ('65f000000000000000000001', 'old', 1, '', '', '{}', 0, 0, 0, 0, 0, NULL)"
        )
        connection.commit()
    backend.set_schema_version(1)

    async with open_store(backend.url) as store:
        ((old, _),) = await store.workers()
        assert (old.hostname, old.owner) == ("old", None)
        assert await store.directory() == Directory()
        await started(store, course="default")
    with closing(sqlite3.connect(backend.path)) as connection:
        assert connection.execute("SELECT * FROM flows").fetchall() == [("default", 0, 0, "", 8.0)]
    assert backend.schema_version() == len(VERSIONS)


def test_a_token_ends_with_the_first_of_its_ends() -> None:
    token = new_token(expires_at=later(10), revoked_at=later(5))
    assert token.ended(NOW) is None
    assert token.ended(later(5)) == later(5)
    assert token.ended(later(10) + timedelta(days=1)) == later(5)
