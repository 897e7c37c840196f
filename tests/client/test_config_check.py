"""Configs without an API: what is wrong and where, and what each stage would get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_client.cli import jsonc
from broadway_client.cli.main import main
from tests.client.serving import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(capsys: Any, text: str, *words: str, code: int = 0) -> str:
    Path("hw.jsonc").write_text(text)
    assert main(["config", "check", "hw.jsonc", *words]) == code
    return str(capsys.readouterr().out)


def test_the_starter_is_valid_and_not_written_over(capsys: Any) -> None:
    assert main(["config", "init"]) == 0
    assert main(["config", "init"]) == 2
    capsys.readouterr()
    assert main(["config", "check", "grading_run.jsonc", "--student", "bob"]) == 0
    told = capsys.readouterr().out
    assert "valid: 3 students, 2 stages each" in told
    assert "WHO=bob" in told
    assert "amy" not in told


def test_the_sample_of_the_repository_is_valid() -> None:
    assert main(["config", "check", str(ROOT / "utils" / "grading_run.json")]) == 0


def test_each_fault_has_its_line(capsys: Any) -> None:
    text = """{
  "students": [{"NET_ID": "amy"}, {"NET_ID": []}],
  /* what is done
     for each */
  "student_pipeline": [
    {"image": "a", "timeout": -1},
    {"image": "b", "memry": "1g"}
  ]
}"""
    found = json.loads(check(capsys, text, "--json", code=1))
    places = {(one["line"], one["column"], one["path"]) for one in found["errors"]}
    assert (2, 46, "$.students[1].NET_ID") in places
    assert (6, 31, "$.student_pipeline[0].timeout") in places
    assert any(line == 7 for line, _, _ in places)
    assert "hw.jsonc:6:31: " in check(capsys, text, code=1)


def test_a_template_that_leads_nowhere_is_found(capsys: Any) -> None:
    text = '{"students": [{"A": "1"}],\n"student_pipeline": [{"image": "a", "env": {"B": "$C"}}]}'
    assert "hw.jsonc:2:50: $C names no variable" in check(capsys, text, code=1)


def test_what_a_stage_gets(capsys: Any) -> None:
    config = {
        "env": {"A": "run", "B": "run"},
        "students": [{"B": "student", "N": 7}],
        "student_pipeline": [{"image": "a", "env": {"C": "$B", "KEY": {"secret": "DEPLOY"}}}],
    }
    (job,) = json.loads(check(capsys, json.dumps(config), "--json"))["jobs"]
    assert job["stages"][0]["env"] == {
        "A": "run",
        "B": "student",
        "C": "student",
        "N": "7",
        "KEY": "<secret DEPLOY>",
        "GRADING_RUN_ID": "<run id>",
        "GRADING_JOB_ID": "<job id>",
    }


@pytest.mark.parametrize("text", ["", "{", "// only words", '{"a": 1,,}', "[,]", '{"a" "b"}', "/* open", "\x00"])
def test_what_is_no_json_stays_none(text: str, capsys: Any) -> None:
    assert "not JSON" in check(capsys, text, code=1)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=VALUES, indent=st.sampled_from([None, 2]), comment=st.sampled_from(['// a " , ] b\n', "/* { \n */", " "]))
def test_comments_change_nothing(value: Any, indent: int | None, comment: str) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    assert jsonc.to_json(text) == text, "plain JSON is left alone"
    commented = comment + text + "\n" + comment
    plain = jsonc.to_json(commented)
    assert json.loads(plain) == value
    assert len(plain) == len(commented)
    assert plain.count("\n") == commented.count("\n")


@given(value=st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), VALUES))
def test_every_value_has_its_place(value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1)
    found = jsonc.places(text)
    for name, inner in value.items():
        line, column = found[f"$.{name}"]
        rest = "\n".join([text.splitlines()[line - 1][column - 1 :], *text.splitlines()[line:]])
        assert json.JSONDecoder().raw_decode(rest)[0] == inner


def test_the_comma_after_the_last_is_borne() -> None:
    assert json.loads(jsonc.to_json('{"a": [1, 2, ], "b": "x,]", }')) == {"a": [1, 2], "b": "x,]"}
