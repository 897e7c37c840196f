"""The documentation hangs together: links lead somewhere, every page is in the index, no state goes without its row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

from broadway_api.domain import DeliveryState, JobState, Reason, RunState, WorkerState
from broadway_api.openapi import answers

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a `#…` may name, as GitHub and its likes make it of headings."""
    headings = re.findall(r"^#{1,6} (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links that are not on another host."""
    text = re.sub(r"`[^`\n]*`", "", without_code(page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "http://")):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(ROOT), target
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_in_the_index() -> None:
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in links(DOCS / "README.md")}
    assert {page for page in DOCS.glob("*.md") if page.name != "README.md"} <= linked


def test_the_readme_opens_with_its_two_commands_and_leads_on_within_a_screen() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert [line.split("#")[0].strip() for line in lines[2:6]] == ["```shell", "make demo", "make test", "```"]
    assert any("docs/tutorial.md" in line for line in lines[:30])


def rows(section: str) -> dict[str, list[str]]:
    """The rows of a section's table in docs/states.md by their first cell, a word in backquotes."""
    _, _, rest = (DOCS / "states.md").read_text().partition(f"\n## {section}\n")
    body = rest.partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line[:2] == "| "]
    return {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`")}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("Of a run", RunState),
        ("Of a job", JobState),
        ("Reasons", Reason),
        ("Of a worker", WorkerState),
        ("Of a webhook's delivery", DeliveryState),
    ],
)
def test_every_state_and_reason_is_explained(section: str, words: type[StrEnum]) -> None:
    explained = rows(section)
    assert set(explained) == {word.value for word in words}
    assert all(cell for row in explained.values() for cell in row)


def test_every_state_of_a_token_is_explained() -> None:
    assert list(rows("Of a token")) == answers.TOKEN["properties"]["state"]["enum"]


def test_a_reason_says_whether_it_is_retried() -> None:
    for word, row in rows("Reasons").items():
        whose, retried = row[:2]
        assert retried == ("yes" if Reason(word).is_infrastructure else "no"), word
        assert ("fleet" in whose) is Reason(word).is_infrastructure, word
