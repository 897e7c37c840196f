"""Secrets: a course's own, replaced and forgotten by name, and sealed anew unless they have changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from broadway_api.domain import SealedSecret
from broadway_api.errors import SecretNotFound
from broadway_api.store import open_store
from broadway_api.store.port import Store
from tests.contract.backends import Backend
from tests.contract.scenarios import NOW, later


def secret(name: str, course: str = "one", sealed: str = "s", changed_at: datetime = NOW) -> SealedSecret:
    return SealedSecret(course=course, name=name, sealed=sealed, changed_at=changed_at)


async def test_a_course_has_its_own_secrets_by_name(store: Store, peer: Store) -> None:
    mine, other, theirs = secret("b.2"), secret("a-1", sealed="t" * 30_000), secret("b.2", "two", "u")
    for each in (mine, other, theirs):
        await store.put_secret(each)

    assert await peer.secrets("one", ["b.2", "a-1", "none"]) == [other, mine]
    assert await peer.secrets("two", ["b.2", "a-1"]) == [theirs]
    assert await peer.secrets("one", []) == await peer.secrets("three", ["b.2"]) == []
    assert list((await peer.secret_names("one")).items()) == [("a-1", NOW), ("b.2", NOW)]
    assert await peer.all_secrets() == [other, mine, theirs]


async def test_there_is_a_sample_unless_there_is_no_secret(store: Store) -> None:
    assert await store.any_secret() is None
    await store.put_secret(secret("a"))
    assert await store.any_secret() == secret("a")


async def test_a_secret_that_is_put_again_is_replaced(store: Store) -> None:
    await store.put_secret(secret("a"))
    again = secret("a", sealed="new", changed_at=later(1))
    await store.put_secret(again)
    assert await store.all_secrets() == [again]
    assert await store.secret_names("one") == {"a": later(1)}


async def test_a_deleted_secret_is_gone_and_no_other(store: Store) -> None:
    await store.put_secret(secret("a"))
    await store.put_secret(secret("a", "two"))
    await store.delete_secret("one", "a")
    assert await store.all_secrets() == [secret("a", "two")]
    with pytest.raises(SecretNotFound):
        await store.delete_secret("one", "a")


async def test_sealing_anew_keeps_the_time_and_loses_to_a_change(store: Store) -> None:
    old = secret("a")
    await store.put_secret(old)
    assert await store.reseal_secret(old, "resealed")
    assert await store.all_secrets() == [replace(old, sealed="resealed")]
    assert not await store.reseal_secret(old, "late")
    assert not await store.reseal_secret(secret("none"), "late")
    assert await store.all_secrets() == [replace(old, sealed="resealed")]


async def test_secrets_survive_a_restart(backend: Backend) -> None:
    async with open_store(backend.url) as store:
        await store.put_secret(secret("a"))
    async with open_store(backend.url) as store:
        assert await store.all_secrets() == [secret("a")]
