"""Removing what hostile code has left: always possible, never anything else."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_grader.directories import opened
from broadway_grader.removal import remove_tree
from tests.grader.identity import USER, as_user

#: A file system in memory, where ten thousand directories cost little.
MEMORY = Path("/dev/shm")

Tree = Mapping[bytes, Any]

_names = st.one_of(
    st.binary(min_size=1, max_size=12).filter(lambda name: name not in (b".", b"..") and not {0, 47} & set(name)),
    st.sampled_from([b"-rf", b"\n", b"\xff\xfe", b"moved-1", b"moved-1-", b"moved-2", b"n" * 255, b" ", b"\x1b[2J"]),
)
_leaves = st.sampled_from(["file", "sparse", "fifo", "socket", "link out", "link up", "link to itself", "hard link"])
#: A directory is its mode and what is in it.
_trees = st.recursive(
    st.dictionaries(_names, _leaves, max_size=4),
    lambda inner: st.dictionaries(_names, st.one_of(_leaves, st.tuples(st.integers(0, 0o7777), inner)), max_size=4),
    max_leaves=30,
)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that other users can reach, in memory; emptied even of what a failing test leaves."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
        for left in directory.iterdir():
            subprocess.run(["rm", "-rf", left], check=True)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """What links lead to, and nothing may happen to."""
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "below" / "kept").write_text("kept")
    yield outside
    assert (outside / "below" / "kept").read_text() == "kept"
    assert {path.name for path in outside.rglob("*")} == {"below", "kept"}


def build(tree: Tree, directory: int, outside: Path) -> None:
    for name, content in tree.items():
        if isinstance(content, tuple):
            os.mkdir(name, dir_fd=directory)
            with opened(os.open(name, os.O_RDONLY, dir_fd=directory)) as below:
                build(content[1], below, outside)
                os.fchmod(below, content[0])
        elif content in ("file", "sparse"):
            with opened(os.open(name, os.O_WRONLY | os.O_CREAT, 0o000, dir_fd=directory)) as file:
                os.ftruncate(file, 2**40 if content == "sparse" else 0)
        elif content == "fifo":
            os.mkfifo(name, 0o000, dir_fd=directory)
        elif content == "socket":
            with socket.socket(socket.AF_UNIX) as listener, contextlib.suppress(OSError):  # too long a name
                listener.bind(f"/proc/self/fd/{directory}/".encode() + name)
        elif content == "hard link":
            os.link(outside.parent / "linked", name, dst_dir_fd=directory)
        else:
            target = {"link out": os.fsencode(outside), "link up": b"../..", "link to itself": name}[content]
            os.symlink(target, name, dir_fd=directory)


@settings(max_examples=60, deadline=None)
@given(tree=_trees, top_mode=st.integers(0, 0o7777))
@pytest.mark.parametrize("user", [0, USER], ids=["root", "user"])
def test_any_tree_is_removed_and_nothing_else(tree: Tree, top_mode: int, user: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        base = Path(name)
        (base / "linked").touch()
        (base / "outside").mkdir()
        (base / "outside" / "kept").write_text("kept")
        (base / "top").mkdir()
        for path in (base, *base.rglob("*")):
            os.chown(path, user, user)

        def work() -> None:
            with opened(os.open(base / "top", os.O_RDONLY)) as top:
                build(tree, top, base / "outside")
                os.fchmod(top, top_mode)
            remove_tree(base / "top")

        assert as_user(work, user) == ""
        assert sorted(path.name for path in base.rglob("*")) == ["kept", "linked", "outside"]
        assert (base / "outside" / "kept").read_text() == "kept"


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_tree(tmp_path / "missing")
    remove_tree(tmp_path / "missing" / "deeper")


@pytest.mark.parametrize("user", [0, USER], ids=["root", "user"])
def test_a_tree_deeper_than_any_path_is_removed_with_few_descriptors(reachable: Path, user: int) -> None:
    os.chown(reachable, user, user)

    def work() -> None:
        (reachable / "top").mkdir()
        at = os.open(reachable / "top", os.O_RDONLY)
        for _ in range(10_000):
            os.mkdir("d" * 100, dir_fd=at)
            below = os.open("d" * 100, os.O_RDONLY, dir_fd=at)
            os.fchmod(at, 0)
            os.close(at)
            at = below
        os.close(at)
        remove_tree(reachable / "top")

    assert as_user(work, user) == ""
    assert list(reachable.iterdir()) == []


def test_a_link_in_place_of_the_tree_is_not_followed(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "top").symlink_to(outside)
    with pytest.raises(OSError, match="directory"):
        remove_tree(tmp_path / "top")


def test_what_a_privileged_stage_made_immutable_is_removed(tmp_path: Path, outside: Path) -> None:
    locked = tmp_path / "top" / "locked"
    (locked / "deeper").mkdir(parents=True)
    for name in ("file\n", "appended"):
        (locked / name).touch()
    (locked / "link").symlink_to(outside)
    subprocess.run(["chattr", "+a", locked / "appended"], check=True)
    subprocess.run(["chattr", "+i", locked / "file\n", locked / "deeper", locked, tmp_path / "top"], check=True)
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == [outside]


def test_a_tree_that_is_changed_while_it_is_removed_leads_nowhere_else(tmp_path: Path, outside: Path) -> None:
    """Directories change places with links to the outside all the time; in the end everything can be removed."""
    top = tmp_path / "top"
    over = threading.Event()

    def swap() -> None:
        number = 0
        while not over.is_set():
            number += 1
            with contextlib.suppress(OSError):
                (top / "d" / "below").mkdir(parents=True)
                (top / "d" / "below" / str(number)).touch()
            with contextlib.suppress(OSError):
                (top / "link").symlink_to(outside)
            for old, new in (("d", "aside"), ("link", "d"), ("d", "link"), ("aside", "d")):
                with contextlib.suppress(OSError):
                    (top / old).rename(top / new)

    top.mkdir()
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                remove_tree(top)
            top.mkdir(exist_ok=True)
    finally:
        over.set()
        swapping.join()
    remove_tree(top)
    assert not top.exists()


def test_the_whole_directory_may_be_another_one_meanwhile(tmp_path: Path, outside: Path) -> None:
    top, over = tmp_path / "top", threading.Event()

    def swap() -> None:
        while not over.is_set():
            for old, new in (("top", "aside"), ("link", "top"), ("top", "link"), ("aside", "top")):
                with contextlib.suppress(OSError):
                    (tmp_path / old).rename(tmp_path / new)

    (tmp_path / "link").symlink_to(outside)
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                top.mkdir()
                with opened(os.open(top, os.O_RDONLY | os.O_NOFOLLOW)) as directory:
                    os.mkdir("file", dir_fd=directory)
            with contextlib.suppress(OSError):
                remove_tree(top)
    finally:
        over.set()
        swapping.join()
    for left in ("top", "aside", "link"):
        path = tmp_path / left
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            remove_tree(path)
