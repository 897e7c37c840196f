"""What we write as JSON is read as what it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadway_api import json_body, json_text
from broadway_api.domain import JobState

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(_VALUES)
@example({"id": 2**64, "least": -(10**30)})
@example([1e16, -0.0, 5e-324])
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    written = json_text.encode(value)
    for again in (json.loads(written), json_body.parse(written), json_text.decode(written.decode())):
        assert (again, repr(again)) == (value, repr(value))


@given(_VALUES | st.integers(10**15, 10**25))
@example([-0.0, 1e16, 12345678901234567890123, "\ud800"])
def test_a_value_that_an_earlier_release_wrote_comes_back_as_it_was(value: Any) -> None:
    written = json.dumps(value)
    assert repr(json_text.decode(written)) == repr(json.loads(written))


def test_words_of_ours_are_written_as_texts() -> None:
    assert (
        json_text.encode({"state": JobState.RUNNING, "names": ("a", "b")}) == b'{"state":"running","names":["a","b"]}'
    )


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        json_text.encode({"what": object()})
