"""No directory of tests is forgotten when they are run in two halves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import run_tests


def test_every_directory_of_tests_is_in_one_half() -> None:
    machine, rest = run_tests.halves()
    listed = [Path(path).name for path in machine + rest]
    assert len(listed) == len(set(listed))
    assert set(listed) == {
        path.parent.relative_to(run_tests.TESTS).parts[0] for path in run_tests.TESTS.rglob("test_*.py")
    }


@pytest.mark.parametrize(("first", "second", "status"), [(0, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_one_failing_half_fails_the_whole(tmp_path: Path, first: int, second: int, status: int) -> None:
    for name, number in (("grader", first), ("unit", second)):
        (tmp_path / "tests" / name).mkdir(parents=True)
        (tmp_path / "tests" / name / f"test_{name}.py").write_text(f"def test_{name}():\n    assert {number} == 0\n")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "run_tests.py").write_text(Path(run_tests.__file__).read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.run_tests"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "test_grader.py" in done.stdout
    assert "test_unit.py" in done.stdout
