"""The reference of options says what `config.py` says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from config import ApiConfig, GraderConfig, Options, environment_name
from scripts.options_reference import reference

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "options.md"


def test_the_page_is_the_one_that_config_py_makes() -> None:
    assert PAGE.read_text() == reference(), "run: python -m scripts.options_reference > docs/options.md"


@pytest.mark.parametrize("kind", [ApiConfig, GraderConfig])
def test_every_option_has_its_line(kind: type[Options]) -> None:
    sections = PAGE.read_text().split("\n## ")
    section = next(text for text in sections if text.startswith(kind.__name__.removesuffix("Config").lower()))
    for field in dataclasses.fields(kind):
        assert f"| `{environment_name(field.name)}` |" in section


def test_what_deploys_broadway_sets_only_options_that_there_are() -> None:
    options = {environment_name(field.name) for kind in (ApiConfig, GraderConfig) for field in dataclasses.fields(kind)}
    files = [file for file in (ROOT / "deploy").rglob("*") if file.is_file()]
    named = {name for file in files for name in re.findall(r"\bBROADWAY_[A-Z_]+\b", file.read_text())}
    assert {"BROADWAY_TOKEN", "BROADWAY_OPEN_METRICS", "BROADWAY_WORK_DIR"} <= named <= options
