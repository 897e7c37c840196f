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
    for read in (json.loads, json_body.parse):
        again = read(json_text.encode(value))
        assert (again, repr(again)) == (value, repr(value))


def test_words_of_ours_are_written_as_texts() -> None:
    assert (
        json_text.encode({"state": JobState.RUNNING, "names": ("a", "b")}) == b'{"state":"running","names":["a","b"]}'
    )


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        json_text.encode({"what": object()})
