"""Output told while it grows: the pieces are the log, however it came, and no secret is in any of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_grader.live_stream import WINDOW, LiveStream, Piece
from broadway_grader.masking import MASK, Mask
from broadway_grader.runtimes.output import BoundedOutput

ALL = 10**9
NOTHING = Mask([])


def told(stream: LiveStream, mask: Mask = NOTHING, limit: int = ALL) -> list[Piece]:
    piece = stream.take(mask, limit)
    return [] if piece is None else [piece]


def texts(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


#: What is cut in the middle: values, their beginnings and overlaps, characters of several bytes, bytes of none.
SECRETS = ("abab", "s3cr\u00e4t\n\u2603!", "aba cab")
BITS = [*SECRETS, *(value[:3] for value in SECRETS), "a", "b", "\u2603", "\U0001f600", "\n", "x"]


@given(data=st.data(), bits=st.lists(st.sampled_from([bit.encode() for bit in BITS] + [b"\xff", b"\xe2\x98"])))
def test_the_pieces_are_the_log(data: Any, bits: list[bytes]) -> None:
    """Whatever is cut where: laid one after the other they are what is reported in the end, and end where they say."""
    printed = b"".join(bits)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(printed)), max_size=6)))
    limit = data.draw(st.sampled_from([ALL, len(printed) // 2 + 1]))
    mask, output = Mask(SECRETS), BoundedOutput(limit)
    stream = LiveStream(output)
    pieces: list[Piece] = []
    for begin, end in zip([0, *cuts], [*cuts, len(printed)], strict=True):
        output.add(printed[begin:end])
        pieces += told(stream, mask)
        assert not any(value in texts(pieces) for value in SECRETS)
    so_far, result = texts(pieces), output.result()
    log = mask.text(result.text, truncated=result.truncated)
    # What is cut off within a character that is none: the log strikes out the beginning of a value there as well.
    if not (result.truncated and result.text.endswith("\N{REPLACEMENT CHARACTER}")):
        assert log.startswith(so_far)
        stream.end(result)
        pieces += told(stream, mask)
        assert texts(pieces) == log
        assert stream.is_told
    place = 0
    for piece in pieces:
        assert piece.start == place
        place += len(piece.text.encode())


@pytest.mark.parametrize("cut", range(1, len(SECRETS[1].encode())))
def test_a_secret_over_two_reads_is_struck_out(cut: int) -> None:
    value, output = SECRETS[1].encode(), BoundedOutput(1_000)
    stream, mask = LiveStream(output), Mask([SECRETS[1]])
    output.add(b"key=" + value[:cut])
    assert texts(told(stream, mask)) == "key="
    output.add(value[cut:] + b"!")
    assert texts(told(stream, mask)) == f"{MASK}!"


def test_what_only_began_like_a_secret_comes_when_it_is_known() -> None:
    output = BoundedOutput(1_000)
    stream, mask = LiveStream(output), Mask(["s3cret"])
    output.add(b"s3cr")
    assert told(stream, mask) == []
    output.add(b"umble s3")
    assert told(stream, mask) == [Piece(start=0, text="s3crumble ")]
    stream.end(output.result())
    assert told(stream, mask) == [Piece(start=10, text="s3")]


def test_a_character_is_told_once_it_is_whole() -> None:
    output = BoundedOutput(1_000)
    stream = LiveStream(output)
    for byte in "\u2603".encode():
        assert told(stream) == []
        output.add(bytes([byte]))
    assert told(stream) == [Piece(start=0, text="\u2603")]
    output.add(b"\xff\xe2A")
    assert told(stream) == [Piece(start=3, text="\N{REPLACEMENT CHARACTER}" * 2 + "A")]


@given(text=st.text(max_size=100), limit=st.integers(1, 40))
def test_of_much_only_the_end_is_told_with_its_place(text: str, limit: int) -> None:
    output = BoundedOutput(ALL)
    stream = LiveStream(output)
    output.add(text.encode())
    for has_ended in (False, True):
        stream.rewind()
        if has_ended:
            stream.end(output.result())
        pieces = told(stream, NOTHING, limit)
        assert len(texts(pieces).encode()) <= limit
        for piece in pieces:
            assert text.encode()[piece.start :].decode() == piece.text
            assert len(piece.text.encode()) > limit - 4 or piece.start == 0


def test_after_a_rewind_the_end_comes_again_at_the_same_place() -> None:
    output = BoundedOutput(ALL)
    stream, mask = LiveStream(output), Mask(["s3cret"])
    output.add(b"a s3cret, and " * WINDOW)
    (first,) = told(stream, mask, 100)
    stream.rewind()
    assert told(stream, mask, 100) == [first]
    assert f"{'a ***, and ' * WINDOW}".encode()[first.start :] == first.text.encode()


def test_what_is_nothing_but_one_long_secret_is_told_at_the_end() -> None:
    """And does not cost more the longer it gets."""
    output = BoundedOutput(ALL)
    stream, mask = LiveStream(output), Mask(["aaaa"])
    output.add(b"a" * (2 * WINDOW))
    assert told(stream, mask) == []
    stream.end(output.result())
    assert texts(told(stream, mask)) == MASK


def test_what_is_beyond_the_log_is_not_told() -> None:
    output = BoundedOutput(10)
    stream = LiveStream(output)
    output.add(b"0123456789and more")
    assert texts(told(stream)) == "0123456789"
    assert stream.is_truncated
