"""However the bytes of a connection are cut into pieces, they are the same requests, or the same fault."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from broadway_api.http1.faults import Malformed
from broadway_api.http1.reading import LARGEST_HEAD, SLICE, Incoming, RequestReader

Seen = tuple[tuple[str, ...], list[tuple[str, str]], bytes, bool]

sizes = st.integers(0, 3 * SLICE)
tokens = st.text("abcdefXYZ-", min_size=1, max_size=8).filter(lambda name: name.lower() != "te")
values = st.text("abc ,;=\t\u00e9", max_size=20)
bodies = st.binary(max_size=40) | st.builds(lambda piece, size: (piece * size)[:size], st.binary(min_size=1), sizes)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Seen]:
    """A request, as it is sent and as it is to be seen."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]))
    target = "/" + draw(st.text("abc/?&=%20", max_size=20))
    fields = [(f"X-{name.title()}", value) for name, value in draw(st.lists(st.tuples(tokens, values), max_size=5))]
    body = draw(bodies)
    if draw(st.booleans()):
        fields.append(("Content-Length", str(len(body))))
        framed = body
    else:
        fields.append(("Transfer-Encoding", "chunked"))
        cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=3))})
        framed = b"".join(b"%x\r\n%s\r\n" % (b - a, body[a:b]) for a, b in pairwise(cuts)) + b"0\r\n\r\n"
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in fields], "", ""]
    return "\r\n".join(lines).encode("latin1") + framed, ((method, target, "HTTP/1.1"), fields, body, True)


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces."""
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=8))})
    return [data[a:b] for a, b in pairwise(cuts)]


def read(sent: list[bytes]) -> tuple[list[Seen], str | None]:
    """What is seen of it, taken away as soon as it is there; and the fault."""
    queue: deque[Incoming] = deque()
    reader, taken = RequestReader(queue), []
    fault = None
    for piece in sent:
        reader.take(piece)
        while fault is None and (reader.unread or queue):
            try:
                reader.read_on()
            except Malformed as malformed:
                fault = malformed.message
            taken += list(queue)
            queue.clear()
    return [
        (tuple(one.start_line), sorted(one.headers().get_all()), b"".join(one.body), one.is_whole) for one in taken
    ], fault


def combined(seen: Seen) -> Seen:
    """Fields of one name side by side, as headers are kept."""
    start, fields, body, whole = seen
    return start, sorted((name, value.strip(" \t")) for name, value in fields), body, whole


@given(st.data(), st.lists(requests(), min_size=1, max_size=4))
def test_requests_are_what_was_sent(data: st.DataObject, sent: list[tuple[bytes, Seen]]) -> None:
    stream = b"".join(part for part, _ in sent)
    seen, fault = read(data.draw(pieces(stream)))
    assert fault is None
    assert [combined(one) for one in seen] == [combined(one) for _, one in sent]


@given(st.data(), requests(), st.binary(max_size=60), st.integers(0, 400))
def test_nothing_that_is_sent_is_more_than_a_fault(
    data: st.DataObject, sent: tuple[bytes, Seen], noise: bytes, at: int
) -> None:
    """And whether it is one does not depend on how it was cut."""
    stream = sent[0][:at] + noise + sent[0][at:]
    once, fault = read([stream])
    again, again_fault = read(data.draw(pieces(stream)))
    assert (again, again_fault is None) == (once, fault is None)


@given(st.data(), st.sampled_from([b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n"]), st.booleans())
def test_a_head_without_an_end_is_a_fault_at_once(data: st.DataObject, begun: bytes, is_line: bool) -> None:
    piece = b"a: b\r\n" if is_line and begun.endswith(b"\n") else b"a"
    stream = begun + piece * (2 * LARGEST_HEAD // len(piece))
    assert read(data.draw(pieces(stream)))[1] is not None


@given(st.data(), st.binary(max_size=40) | st.binary(min_size=SLICE, max_size=SLICE))
def test_what_follows_a_handshake_is_kept(data: st.DataObject, rest: bytes) -> None:
    stream = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n" + rest
    queue: deque[Incoming] = deque()
    reader = RequestReader(queue)
    for piece in data.draw(pieces(stream)):
        reader.take(piece)
        reader.read_on()
    assert (queue[0].wants_websocket, reader.rest) == (True, rest)
