"""A job's secrets in what is told of it: struck out in every form that programs give them, and nothing else is."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_grader.domain import JobResult, Output, Reason, StageResult
from broadway_grader.masking import MASK, Mask

NOW = datetime(2026, 1, 31, tzinfo=UTC)
VALUE = "s3cr3t/pass+word"
PEM = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\nab\n-----END KEY-----\n"


@pytest.mark.parametrize(
    ("value", "text", "masked"),
    [
        (VALUE, f"token={VALUE};", f"token={MASK};"),
        (VALUE, VALUE * 2, MASK * 2),
        (VALUE, "nothing", "nothing"),
        (VALUE, json.dumps({"a": VALUE}), json.dumps({"a": MASK})),
        ('qu"o\\te', json.dumps('qu"o\\te'), f'"{MASK}"'),
        (VALUE, f"https://x/?t={quote(VALUE, safe='')}&u", f"https://x/?t={MASK}&u"),
        (PEM, PEM.replace("\n", "\r\n"), f"{MASK}\r\n{MASK}\r\nab\r\n{MASK}\r\n"),
        (PEM, "line MIIEpAIBAAKCAQEA of it", f"line {MASK} of it"),
        ("abab", "xababab", f"x{MASK}"),
    ],
)
def test_a_value_is_struck_out_in_its_forms(value: str, text: str, masked: str) -> None:
    assert Mask([value]).text(text) == masked


def test_values_that_overlap_leave_nothing_of_either() -> None:
    assert Mask(["abcdef", "defghi"]).text("1abcdefghi2") == f"1{MASK}2"


@given(before=st.binary(max_size=6), value=st.text("abcdefgh+/", min_size=12, max_size=40), after=st.binary(max_size=6))
def test_base64_around_a_value_tells_little_of_it(before: bytes, value: str, after: bytes) -> None:
    text = base64.b64encode(before + value.encode() + after).decode()
    masked = Mask([value]).text(text)
    assert MASK in masked
    left = base64.b64decode(masked.partition(MASK)[0] + "A" * (-len(masked.partition(MASK)[0]) % 4))
    assert value[3:] not in left.decode(errors="replace")


@given(
    value=st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=40).filter(
        lambda v: len(v.strip()) > 3
    ),
    around=st.lists(st.text(max_size=10), min_size=2, max_size=4),
    limit=st.integers(0, 200),
)
def test_no_text_has_a_value_left_however_it_was_cut(value: str, around: list[str], limit: int) -> None:
    whole = value.join(around)
    masked = Mask([value]).text(whole[:limit], truncated=limit < len(whole))
    assert value not in masked.replace(MASK, "") or any(value in text for text in around) or value in MASK
    if limit == len(around[0]) + len(value) - 1 and value not in around[0]:
        assert masked.endswith(MASK)  # all but a character of it stood at the end


def test_a_character_that_was_cut_in_two_hides_no_beginning() -> None:
    assert Mask(["geheim\u00e4rgernis"]).text("x geheim\N{REPLACEMENT CHARACTER}", truncated=True) == f"x {MASK}"


def test_a_result_has_no_place_for_a_value() -> None:
    stage = StageResult(
        started_at=NOW,
        finished_at=NOW,
        runtime="docker",
        reason=Reason.STAGE_FAILED,
        message=f"exec {VALUE}",
        stdout=Output(text=f"a {VALUE}"),
        stderr=Output(text=f"b {VALUE[:9]}", truncated=True),
        results={"tests": [{"output": VALUE, VALUE: 1.5}], "score": 2},
        results_errors=[{"path": "$", "message": VALUE}],
    )
    masked = Mask([VALUE]).result(JobResult(job_id="j", attempt=1, stages=[stage])).to_wire()
    assert VALUE not in json.dumps(masked)
    assert masked["info"][0]["stderr"] == f"b {MASK}"
    assert masked["info"][0]["results"]["score"] == 2
