"""Tokens known without asking the store; the sources that they come from, and the limit on wrong ones."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from broadway_api import course_config
from broadway_api.access import OPERATOR, Access
from broadway_api.cluster_tokens import ClusterTokens, TokenFileFault
from broadway_api.course_config import CourseConfigFault
from broadway_api.errors import DirectoryFull, StoreUnavailable
from broadway_api.failures import Failures
from broadway_api.handlers.proxies import Proxies
from broadway_api.ids import new_id
from broadway_api.store.port import Store
from broadway_api.tenants import MAX_ENTRIES, Course, Directory, Principal, Role, Token, digest

NOW = datetime(2026, 1, 31, tzinfo=UTC)


class OneDirectory:
    """The part of a store that is asked here."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.asked = 0
        self.away = False

    async def directory_since(self, version: int) -> Directory | None:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("it is away")
        return None if self.directory.version == version else self.directory


class Scene:
    """An Access over a directory that a test can change, and a clock that it can set."""

    def __init__(self) -> None:
        self.store, self.now, self.seconds = OneDirectory(), NOW, 100.0
        tokens = ClusterTokens.given("cluster", "another")
        self.access = Access(cast(Store, self.store), tokens, lambda: self.now, monotonic=lambda: self.seconds)

    def change(self, change: Callable[[Directory], Directory]) -> None:
        after = change(self.store.directory)
        self.store.directory = Directory(
            courses=after.courses, tokens=after.tokens, version=self.store.directory.version + 1
        )


def token(text: str, role: Role = Role.ADMIN, **fields: Any) -> Token:
    course = "cs" if role.of_course else None
    made: dict[str, Any] = {"id": new_id(), "created_at": NOW, "course": course}
    return Token(digest=digest(text), role=role, **(made | fields))


async def test_who_a_token_stands_for() -> None:
    scene = Scene()
    worker = token("graders", Role.WORKER, label="rack")
    scene.change(lambda directory: directory.with_course("cs", tokens=[digest("a")], query_tokens=[digest("q")]))
    for made in (worker, token("made"), token("boss", Role.OPERATOR)):
        scene.change(lambda directory, made=made: directory.with_token(made))  # type: ignore[misc]
    await scene.access.refresh()
    known = {text: await scene.access.identify(text) for text in ("cluster", "another", "boss")}
    assert set(known.values()) == {(OPERATOR,)}
    assert await scene.access.identify("a") == (Principal(role=Role.ADMIN, course="cs"),)
    assert await scene.access.identify("made") == (Principal(role=Role.ADMIN, course="cs"),)
    assert await scene.access.identify("q") == (Principal(role=Role.QUERY, course="cs"),)
    assert await scene.access.identify("graders") == (Principal(role=Role.WORKER, owner="label rack"),)
    for wrong in ("", "A", "a ", "clusters", digest("a"), digest("cluster"), "\udcff"):
        assert await scene.access.identify(wrong) == ()


async def test_a_token_opens_nothing_once_it_ended_or_its_course_went() -> None:
    scene = Scene()
    revoked, expiring = token("revoked"), token("expiring", expires_at=NOW + timedelta(seconds=5))
    scene.change(lambda directory: directory.with_course("cs"))
    for made in (revoked, expiring, token("kept")):
        scene.change(lambda directory, made=made: directory.with_token(made))  # type: ignore[misc]
    scene.change(lambda directory: directory.with_token_revoked(revoked.id, NOW))
    await scene.access.refresh()
    assert [bool(await scene.access.identify(text)) for text in ("revoked", "expiring", "kept")] == [False, True, True]
    scene.now += timedelta(seconds=5)
    assert not await scene.access.identify("expiring")
    scene.change(lambda directory: directory.with_file([]).without_course("cs", NOW))
    await scene.access.refresh()
    assert not await scene.access.identify("kept")


async def test_unknown_tokens_make_the_store_be_asked_now_and_then() -> None:
    scene = Scene()
    await scene.access.refresh()
    for _ in range(50):
        await scene.access.identify("wrong")
    assert scene.store.asked == 1
    scene.change(lambda directory: directory.with_course("cs", tokens=[digest("new")]))
    assert not await scene.access.identify("new")
    scene.seconds += 0.3
    assert await scene.access.identify("new")
    assert scene.store.asked == 2


async def test_known_tokens_work_while_the_store_is_away() -> None:
    scene = Scene()
    scene.change(lambda directory: directory.with_course("cs", tokens=[digest("a")]))
    await scene.access.refresh()
    scene.store.away, scene.seconds = True, scene.seconds + 9
    assert await scene.access.identify("a")
    assert not await scene.access.identify("wrong")


async def test_a_token_among_ten_thousand_costs_microseconds() -> None:
    scene = Scene()
    tokens = {made.id: made for made in (token(f"t{number}", Role.WORKER) for number in range(MAX_ENTRIES))}
    scene.store.directory = Directory(tokens=tokens, version=1)
    await scene.access.refresh()
    began = time.process_time()
    for number in range(2_000):
        assert await scene.access.identify(f"t{number}")
    assert (time.process_time() - began) / 2_000 < 200e-6  # 10 on an idle machine
    assert scene.store.asked == 1
    with pytest.raises(DirectoryFull):
        scene.store.directory.with_course("one-more")


async def test_nothing_keeps_a_tokens_text() -> None:
    scene = Scene()
    await scene.access.identify("cluster")
    assert "'cluster'" not in repr(vars(scene.access)) + repr(vars(scene.access._cluster_tokens))


# --- the token file --------------------------------------------------------------------------------------------------


def test_a_token_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "tokens"
    path.write_text("# of spring\nold\n\n")
    tokens = ClusterTokens.kept_in(path)
    assert tokens.digests == {digest("old")}
    caplog.set_level(logging.INFO)
    for content, expected in (
        ("old\n  new  \n", {"old", "new"}),
        ("", {"old", "new"}),  # a fault leaves what was
        ("s3cret with spaces\n", {"old", "new"}),
        ("new\n", {"new"}),
    ):
        path.with_suffix(".next").write_text(content)
        path.with_suffix(".next").rename(path)
        tokens.follow()
        assert tokens.digests == set(map(digest, expected))
    path.unlink()
    tokens.follow()
    tokens.follow()
    assert tokens.digests == {digest("new")}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 5  # each change once
    assert "s3cret" not in repr(told)


@pytest.mark.parametrize(
    ("content", "told"), [("", "is empty"), ("# none\n", "is empty"), ("a\nb c\n", "line 2"), ("\xff", "line 1")]
)
def test_a_token_file_that_cannot_be_used(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(TokenFileFault, match=told):
        ClusterTokens.kept_in(path)
    with pytest.raises(TokenFileFault, match="cannot be read: No such file"):
        ClusterTokens.kept_in(tmp_path / "none")


# --- the course config -----------------------------------------------------------------------------------------------


def test_a_course_config_is_read(tmp_path: Path) -> None:
    path = tmp_path / "courses.json"
    path.write_text(json.dumps({"cs-241": {"tokens": ["a"], "query_tokens": ["q", "r"], "weight": 2}, "ece": {}}))
    one = Course(id="cs-241", weight=2, tokens=frozenset({digest("a")}), query_tokens=frozenset(map(digest, "qr")))
    assert course_config.read(path) == [one, Course(id="ece")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"cs": {"tokens": ["s3cret",]}}', "line 1, column 29: not JSON"),
        ('{\n"cs": {"tokens": "s3cret"}}', r"\$\.cs\.tokens: what stands here is not of type"),
        ('{"cs": {"tokens": ["s3cret x"]}}', r"\$\.cs\.tokens\[0\]: what stands here"),
        ('{"cs": {"tokens": [""]}}', r"\$\.cs\.tokens\[0\]"),
        ('{"cs": "s3cret"}', r"\$\.cs: what stands here is not of type"),
        ('{"cs": {"token": ["s3cret"]}}', r"\$\.cs: .*'token' was unexpected"),
        ('{"cs": {"weight": 0}}', r"\$\.cs\.weight"),
        ('{"c.s": {}}', r"\$: .c.s."),
        ('{"cs": {}, "cs": {}}', "stands twice"),
        ("[]", r"\$: what stands here is not of type"),
        ('{"a": {"weight": 0}, "b": {"weight": 0}}', r"\(and 1 more\)"),
    ],
)
def test_a_course_config_that_cannot_be_used_says_where_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "courses.json"
    path.write_text(content)
    with pytest.raises(CourseConfigFault, match=told) as caught:
        course_config.read(path)
    assert str(path) in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


# --- too many failures -----------------------------------------------------------------------------------------------


class Clock:
    """A monotonic clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_failures_within_the_limit_are_let_be(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    failures = Failures(30, monotonic=clock)
    assert [failures.note("192.0.2.1") for _ in range(30)] == [None] * 30
    assert failures.note("192.0.2.1") == pytest.approx(2)
    assert failures.note("192.0.2.1") == pytest.approx(2)  # a refused one costs nothing more
    assert failures.note("192.0.2.2") is None
    clock.now += 2
    assert failures.note("192.0.2.1") is None
    assert failures.note("192.0.2.1") == pytest.approx(2)
    clock.now += 60
    assert [failures.note("192.0.2.1") for _ in range(31)] == [None] * 30 + [pytest.approx(2)]
    assert [record.getMessage() for record in caplog.records] == ["too many failed authentications from 192.0.2.1"] * 2


def test_failures_take_bounded_memory_and_an_ipv6_network_is_one() -> None:
    failures = Failures(1, capacity=10, monotonic=Clock())
    for number in range(1_000):
        failures.note(f"10.0.{number // 256}.{number % 256}")
    assert len(failures) == 10
    assert failures.note("2001:db8::1") is None
    assert failures.note("2001:db8::ffff:2") is not None
    assert failures.note("2001:db8:0:1::1") is None


# --- behind proxies --------------------------------------------------------------------------------------------------


def request(peer: str, **headers: str) -> HTTPServerRequest:
    named = HTTPHeaders({"Host": "api"} | {name.replace("_", "-"): value for name, value in headers.items()})
    made = HTTPServerRequest(start_line=RequestStartLine("GET", "/", "HTTP/1.1"), headers=named)
    made.remote_ip = peer
    made.protocol = "http"
    return made


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", None, "198.51.100.7"),
        ("198.51.100.7", "192.0.2.1", "198.51.100.7"),  # nobody's word
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "203.0.113.9, 192.0.2.1", "192.0.2.1"),  # the first the client made up
        ("127.0.0.1", "192.0.2.1, 10.1.2.3", "192.0.2.1"),
        ("127.0.0.1", "10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "192.0.2.1, nonsense", "127.0.0.1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("", "192.0.2.1", "unknown"),
    ],
)
def test_the_address_of_a_client(peer: str, forwarded: str | None, client: str) -> None:
    headers = {} if forwarded is None else {"X_Forwarded_For": forwarded}
    assert Proxies(["127.0.0.1", "10.0.0.0/8"]).client_address(request(peer, **headers)) == client


def test_https_is_a_trusted_proxys_word() -> None:
    proxies = Proxies(["127.0.0.1"])
    assert proxies.is_secure(request("127.0.0.1", X_Forwarded_Proto="https"))
    assert not proxies.is_secure(request("198.51.100.7", X_Forwarded_Proto="https"))
    assert not proxies.is_secure(request("127.0.0.1"))


def test_a_proxy_that_is_no_address() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        Proxies(["10.0.0.1/8"])


def test_the_token_files_times_are_not_all_that_tells_of_a_change(tmp_path: Path) -> None:
    """An editor that writes within the clock's tick, or a copy that keeps the times, changes another thing."""
    path = tmp_path / "tokens"
    path.write_text("one")
    tokens = ClusterTokens.kept_in(path)
    before = path.stat()
    path.write_text("three")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    tokens.follow()
    assert tokens.digests == {digest("three")}
