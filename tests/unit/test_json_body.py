"""Bodies are read strictly, and whatever is wrong with one is the caller's fault."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_api import json_body
from broadway_api.errors import InvalidInput, NotJson

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"))
values = st.recursive(scalars | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


@given(values)
def test_what_json_can_say_is_read_as_it_was_written(value: Any) -> None:
    assert json_body.parse(json.dumps(value, ensure_ascii=False).encode()) == value
    assert json_body.parse(json.dumps(value).encode()) == value


@given(st.binary() | st.text('[]{}",:0123456789eE.-\\u dtrfnNaI\n').map(str.encode))
def test_any_bytes_are_a_value_or_a_typed_fault(body: bytes) -> None:
    with suppress(InvalidInput):
        json_body.parse(body)


@given(
    st.binary()
    | values.map(lambda value: json.dumps(value).encode())
    | st.text('[]{}",:01eE.-\\u dtrfnNaI\n').map(str.encode)
)
def test_a_large_body_is_read_as_a_small_one(body: bytes) -> None:
    outcomes: list[Any] = []
    for haste in (json_body.MAX_HASTE, -1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_body, "MAX_HASTE", haste)
            try:
                outcomes.append(json_body.parse(body))
            except InvalidInput as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("item", [b"1", b"null", b'"a"', b"[]", b"{}", b'{"a":1}'])
def test_a_body_of_too_many_values_is_refused(item: bytes) -> None:
    with pytest.raises(InvalidInput, match="more than 1000000 values"):
        json_body.parse(b"[" + b",".join([item] * 1_100_000) + b"]")


def test_a_class_of_fifty_thousand_is_not_too_many() -> None:
    entry = {f"NAME_{number}": "x" for number in range(15)}
    assert len(json_body.parse(json.dumps([entry] * 50_000).encode())) == 50_000


def test_other_threads_have_their_turn_while_a_large_body_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: in one go it would be one or two."""
    monkeypatch.setattr(json_body, "_refuse_depth", lambda value: None)  # it has pauses of its own
    body = b"[" + b",".join([b"[]"] * 240_000) + b"]"
    reader = threading.Thread(target=json_body.parse, args=(body,))
    turns = 0
    reader.start()
    while reader.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns >= 10


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [
        (b"", 1, 1),
        (b"{", 1, 2),
        (b'{\n  "students": ,\n}', 2, 15),
        (b"[1, 2\n3]", 2, 1),
        (b"[1] x", 1, 5),
        (b'"\xff"', 1, 2),
        ('{"é": 1,\n"ü" '.encode() + b"\xff", 2, 5),
        (b'{"a": "NaN",\n "b": NaN}', 2, 7),
        (b"[-Infinity]", 1, 2),
        (b'["\\" NaN", Infinity]', 1, 12),
    ],
)
def test_a_fault_of_the_text_is_told_by_line_and_column(body: bytes, line: int, column: int) -> None:
    with pytest.raises(NotJson) as caught:
        json_body.parse(body)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert f"line {line}, column {column}" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"x": [{"a": 1, "\\u0061": 2}]}', "stands twice"),
        (b"1e999", "too large"),
        (b"[-1e999]", "too large"),
        (b"9" * 5_000, "digits"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'"\\ude00\\ud83d"', "surrogate"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        json_body.parse(body)


@pytest.mark.parametrize("mend_text", [True, False])
@pytest.mark.parametrize("rest", ["1", '"\\ud800"'])
@pytest.mark.parametrize("deep", [101, 300, 990, 100_000])
def test_deep_nesting_is_refused_on_any_stack(deep: int, rest: str, mend_text: bool) -> None:
    outcomes: list[BaseException] = []

    def parse() -> None:
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            try:
                json_body.parse((opening * deep + rest + closing * deep).encode(), mend_text=mend_text)
            except InvalidInput as error:
                outcomes.append(error)

    thread = threading.Thread(target=parse)  # its stack is nearly empty, so Python itself would let more through
    thread.start()
    thread.join()
    assert [type(outcome) for outcome in outcomes] == [InvalidInput, InvalidInput]
    assert "nested" in str(outcomes[0])


def test_nesting_that_people_write_is_read() -> None:
    json_body.parse(b"[" * 100 + b"]" * 100)


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert json_body.parse(b'"\\ud83d\\ude00 \\\\ud800"') == "\U0001f600 \\ud800"


def test_halves_of_pairs_in_a_graders_output_are_mended() -> None:
    assert json_body.parse(b'{"a\\ud800": ["x\\udc00y", 1]}', mend_text=True) == {"a\ufffd": ["x\ufffdy", 1]}


def test_a_double_name_is_found_in_time_linear_in_the_object() -> None:
    """The old way compared each name with each other: at this size 10¹⁰ comparisons, minutes within the timeout."""
    names = ",".join(f'"{number}": 0' for number in range(150_000))
    with pytest.raises(InvalidInput, match="'last' stands twice"):
        json_body.parse(f'{{{names}, "last": 1, "last": 2}}'.encode())
