"""Every shell block of docs/tutorial.md, typed into terminals as a newcomer would, and what it promises."""

from __future__ import annotations

import itertools
import re
import shutil
import site
from dataclasses import dataclass
from pathlib import Path

import pytest

from broadway_client.cli.processes import free_port
from tests.client.commands import Terminal, environment
from tests.e2e.fleet import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.md"


@dataclass
class Block:
    """What is typed, and the lines that must then be seen, in their order."""

    commands: str
    promised: list[str]


def blocks() -> list[Block]:
    found: list[Block] = []
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL):
        if kind == "shell":
            found.append(Block(commands=text, promised=[]))
        else:
            assert kind == "text", kind
            found[-1].promised = text.splitlines()
    return found


def assert_kept(promised: list[str], written: str) -> None:
    """Each promised line stands in what was written, `…` for anything, and all of them in this order."""
    lines = iter(line.rstrip() for line in written.replace("\r", "\n").split("\n"))
    for promise in promised:
        parts = [r"\s+".join(map(re.escape, part.split())) for part in promise.split("…")]
        pattern = re.compile(".*".join(parts).replace(r"\ ", r"\s+"))
        assert any(pattern.search(line) for line in lines), f"{promise!r} is not in:\n{written}"


#: Seconds that one block may take: the first installs the package.
_PATIENCE = 400.0

#: Ends at the first command that fails, as a newcomer would.
BASH = ["bash", "--norc", "-e"]


class Shell:
    """A shell in a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._numbers = itertools.count()
        self.run("stty -echo")

    def run(self, commands: str) -> str:
        """What the commands write until they have ended."""
        begun, number = len(self.terminal.text), next(self._numbers)
        self.terminal.enter(f"{commands}\necho done '#'{number}\n")
        self.terminal.until(f"done #{number}", _PATIENCE)
        return self.terminal.text[begun:]


@pytest.mark.timeout(900)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    clone, home = tmp_path / "clone", tmp_path / "home"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "data", "build", "*.egg-info", "__pycache__"))
    home.mkdir()
    port = free_port()
    variables = environment(None, home) | {
        "BROADWAY_PORT": str(port),
        "BROADWAY_API": f"http://127.0.0.1:{port}",
        "BROADWAY_RUNTIME": "sandbox",  # whether an engine has python:3.12-slim is the machine's affair
        # Only setuptools is downloaded: pip finds all that the package needs where this test has it.
        "PYTHONPATH": site.getsitepackages()[0],
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    with (
        Terminal(cwd=clone, environment=variables, command=BASH) as one,
        Terminal(cwd=clone, environment=variables, command=BASH) as two,
    ):
        first, second = Shell(one), Shell(two)
        shell = first
        for block in blocks():
            if block.commands.strip() == "broadway dev":
                for name in ("api", "config", "grader", "logs"):  # a course's own, in whose way ours must not be
                    (home / "course" / f"{name}.py").write_text("raise SystemExit('this is not Broadway')\n")
                one.enter(block.commands)
                one.until("Ctrl-C stops it", _PATIENCE)
                written, shell = one.text, second
            else:
                written = shell.run(block.commands)
            assert_kept(block.promised, written)
        assert shell is second
        one.interrupt()
        one.until("\nstopped")
    assert (home / "course" / "grades.csv").exists()
